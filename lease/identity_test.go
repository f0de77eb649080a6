// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"encoding/hex"
	"net"
	"strings"
	"testing"
)

func TestDeriveMAC(t *testing.T) {
	base := DeriveMAC("m1", "ens192", "web", "eth0")
	if got := DeriveMAC("m1", "ens192", "web", "eth0"); !bytes.Equal(got, base) {
		t.Errorf("%v and %v from the same names", base, got)
	}
	for name, other := range map[string]net.HardwareAddr{
		"another machine":   DeriveMAC("m2", "ens192", "web", "eth0"),
		"another parent":    DeriveMAC("m1", "ens193", "web", "eth0"),
		"another identity":  DeriveMAC("m1", "ens192", "web2", "eth0"),
		"another interface": DeriveMAC("m1", "ens192", "web", "eth1"),
		"shifted names":     DeriveMAC("m1", "ens192w", "eb", "eth0"),
		"digits moved":      DeriveMAC("m1e", "ns192", "web", "eth0"),
	} {
		if bytes.Equal(other, base) {
			t.Errorf("%s: the same MAC %v", name, base)
		}
	}
	c := ClusterPrefix + "web"
	if a, b := DeriveMAC("m1", "ens192", c, "eth0"), DeriveMAC("m2", "eno1.100", c, "eth0"); !bytes.Equal(a, b) {
		t.Errorf("a cluster's identity has MAC %v on one host and %v on another", a, b)
	}
	// An address at the DHCP server hangs on this: it never changes.
	if got := base.String(); got != stableMAC {
		t.Errorf("MAC %s, it was %s", got, stableMAC)
	}
}

const stableMAC = "ee:b4:29:ca:1b:73"

func FuzzDeriveMAC(f *testing.F) {
	f.Add("m", "p", "i", "eth0")
	f.Add("", "", "cluster:", "")
	f.Fuzz(func(t *testing.T, machine, parent, identity, ifname string) {
		mac := DeriveMAC(machine, parent, identity, ifname)
		if len(mac) != 6 || mac[0]&1 != 0 || mac[0]&2 == 0 {
			t.Errorf("%v is no locally administered unicast address", mac)
		}
	})
}

func TestParseClientID(t *testing.T) {
	mac := net.HardwareAddr{2, 1, 2, 3, 4, 5}
	for name, tc := range map[string]struct{ in, want, err string }{
		"default":       {in: "", want: "01020102030405"},
		"hex":           {in: "hex:00aabb", want: "00aabb"},
		"hex, colons":   {in: "hex:00:AA:bb", want: "00aabb"},
		"0x":            {in: "0x01ff", want: "01ff"},
		"text":          {in: "web", want: "00776562"},
		"one byte text": {in: "w", want: "0077"},
		"odd hex":       {in: "0x1", err: "not hexadecimal"},
		"bad hex":       {in: "hex:zz", err: "not hexadecimal"},
		"short hex":     {in: "hex:01", err: "2 to 255"},
		"empty hex":     {in: "0x", err: "2 to 255"},
		"longest text":  {in: strings.Repeat("x", 254), want: "00" + strings.Repeat("78", 254)},
		"long text":     {in: strings.Repeat("x", 255), err: "2 to 255"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseClientID(tc.in, mac, "m1", "web", "eth0")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || hex.EncodeToString(got) != tc.want {
				t.Errorf("%x, %v; want %s", got, err, tc.want)
			}
		})
	}
	duid := func(machine, identity, ifname string) []byte {
		id, err := ParseClientID("duid", mac, machine, identity, ifname)
		if err != nil {
			t.Fatal(err)
		}
		// RFC 4361: 255, IAID of 4 bytes, DUID; RFC 6355: type 4 and 16 bytes.
		if len(id) != 1+4+2+16 || id[0] != 255 || id[5] != 0 || id[6] != 4 {
			t.Fatalf("duid %x", id)
		}
		return id
	}
	a, b := duid("m1", "web", "eth0"), duid("m1", "db", "eth0")
	if !bytes.Equal(a[5:], b[5:]) || bytes.Equal(a[1:5], b[1:5]) {
		t.Errorf("%x and %x: want one DUID of the machine and two IAIDs", a, b)
	}
	if c := duid("m2", "web", "eth0"); bytes.Equal(a[5:], c[5:]) {
		t.Errorf("two machines with DUID %x", c[5:])
	}
	if c, d := duid("m1", "cluster:web", "eth0"), duid("m2", "cluster:web", "eth0"); !bytes.Equal(c, d) {
		t.Errorf("a cluster's identity has %x on one host and %x on another", c, d)
	} else if e := duid("m1", "cluster:db", "eth0"); bytes.Equal(c[5:], e[5:]) {
		t.Errorf("two identities of a cluster with DUID %x", c[5:])
	}
}

func FuzzParseClientID(f *testing.F) {
	for _, s := range []string{"", "duid", "hex:01:02", "0x", "text", strings.Repeat("é", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseClientID(s, net.HardwareAddr{2, 0, 0, 0, 0, 1}, "m", "i", "eth0")
		if err == nil && (len(id) < 2 || len(id) > 255) {
			t.Errorf("client id of %d bytes from %q", len(id), s)
		}
	})
}

func TestNewIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newID()
		if len(id) != 12 || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}
