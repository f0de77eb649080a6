// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testdata has packets in hex and what must become of them.
const testdata = "../testdata/dhcp"

// golden compares got with a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join(testdata, file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// hexLines is b as the packet files have it, 32 bytes a line.
func hexLines(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		s.WriteString(hex.EncodeToString(b[:n]) + "\n")
		b = b[n:]
	}
	return s.String()
}

func readPacket(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return b
}

// ACKs of real servers, and the bindings in them.
func TestServers(t *testing.T) {
	for _, server := range []string{"dnsmasq", "kea-dhcp4", "dhcpd"} {
		t.Run(server, func(t *testing.T) {
			m, err := Decode(readPacket(t, filepath.Join(testdata, server+"-ack.hex")))
			if err != nil {
				t.Fatal(err)
			}
			b, err := newBinding(m)
			if err != nil {
				t.Fatal(err)
			}
			checkBinding(t, b)
			b.T1, b.T2 = 0, 0 // random
			text, err := json.MarshalIndent(b, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, server+"-ack.json", string(text)+"\n")
		})
	}
}

// packet is a BOOTREPLY with these bytes in sname, file and the options field.
func packet(sname, file, options []byte) []byte {
	b := make([]byte, optionsStart, optionsStart+len(options))
	b[0], b[1], b[2] = 2, 1, 6
	copy(b[snameStart:fileStart], sname)
	copy(b[fileStart:cookieStart], file)
	copy(b[cookieStart:], []byte{99, 130, 83, 99})
	return append(b, options...)
}

func TestDecode(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, 200)
	tests := []struct {
		name    string
		b       []byte
		options dhcpv4.Options // nil: an error
		file    string
		sname   string
	}{
		{name: "plain", b: packet([]byte("srv"), []byte("boot"), []byte{53, 1, 2, 255}), options: dhcpv4.Options{53: {2}}, file: "boot", sname: "srv"},
		{name: "no END", b: packet(nil, nil, []byte{53, 1, 2}), options: dhcpv4.Options{53: {2}}},
		{name: "no options", b: packet(nil, nil, nil), options: dhcpv4.Options{}},
		{name: "rubbish behind END", b: packet(nil, nil, []byte{53, 1, 2, 255, 9, 9, 9}), options: dhcpv4.Options{53: {2}}},
		{name: "padding", b: packet(nil, nil, []byte{0, 0, 53, 1, 2, 0, 0, 255, 0, 0}), options: dhcpv4.Options{53: {2}}},
		{name: "parts", b: packet(nil, nil, append(append(append([]byte{15, 200}, long...), append([]byte{53, 1, 2, 15, 200}, long...)...), 255)),
			options: dhcpv4.Options{53: {2}, 15: append(long[:200:200], long...)}},
		{name: "overload file", b: packet([]byte("srv"), []byte{51, 4, 0, 0, 0, 60, 255}, []byte{52, 1, 1, 53, 1, 2, 255}),
			options: dhcpv4.Options{52: {1}, 53: {2}, 51: {0, 0, 0, 60}}, sname: "srv"},
		{name: "overload sname", b: packet([]byte{51, 4, 0, 0, 0, 60, 255}, []byte("boot"), []byte{52, 1, 2, 53, 1, 2, 255}),
			options: dhcpv4.Options{52: {2}, 53: {2}, 51: {0, 0, 0, 60}}, file: "boot"},
		{name: "overload both, parts in order", b: packet([]byte{15, 1, 'c', 255}, []byte{15, 1, 'b', 255}, []byte{52, 1, 3, 15, 1, 'a', 255}),
			options: dhcpv4.Options{52: {3}, 15: []byte("abc")}},
		{name: "overload without END", b: packet(nil, []byte{15, 1, 'b'}, []byte{52, 1, 1, 255}), options: dhcpv4.Options{52: {1}, 15: []byte("b")}},

		{name: "overload of a broken field", b: packet(nil, append(bytes.Repeat([]byte{0}, 126), 15, 9), []byte{52, 1, 1, 255})},
		{name: "overload 0", b: packet(nil, nil, []byte{52, 1, 0, 255})},
		{name: "overload 4", b: packet(nil, nil, []byte{52, 1, 4, 255})},
		{name: "overload of two bytes", b: packet(nil, nil, []byte{52, 2, 1, 1, 255})},
		{name: "overload inside overload", b: packet(nil, []byte{52, 1, 2, 255}, []byte{52, 1, 1, 255}), options: dhcpv4.Options{52: {1, 2}}},
		{name: "nothing", b: nil},
		{name: "short", b: packet(nil, nil, nil)[:optionsStart-1]},
		{name: "too long", b: packet(nil, nil, make([]byte, maxMessage))},
		{name: "no cookie", b: make([]byte, 300)},
		{name: "option cut off", b: packet(nil, nil, []byte{53, 1, 2, 15, 9, 'x'})},
		{name: "option cut off by one byte", b: packet(nil, nil, []byte{51, 4, 0, 0, 0})},
		{name: "option without length", b: packet(nil, nil, []byte{53, 1, 2, 15})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := append(bytes.Clone(tt.b), 7) // more of a buffer follows
			m, err := Decode(whole[:len(tt.b)])
			if !bytes.Equal(whole, append(bytes.Clone(tt.b), 7)) {
				t.Error("Decode wrote into its input or beyond it")
			}
			if tt.options == nil {
				if err == nil {
					t.Errorf("decoded to %v", m.Summary())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.options, m.Options); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
			if m.BootFileName != tt.file || m.ServerHostName != tt.sname {
				t.Errorf("file %q, sname %q", m.BootFileName, m.ServerHostName)
			}
		})
	}
}

// seeds are packets that the fuzz targets start from.
func seeds(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(testdata, "*.hex"))
	if err != nil || len(files) == 0 {
		f.Fatal("no seed packets in ", testdata, err)
	}
	for _, file := range files {
		f.Add(readPacket(f, file))
	}
	f.Add(packet([]byte{15, 1, 'c', 255}, []byte{121, 5, 0, 10, 0, 0, 1, 255}, []byte{52, 1, 3, 53, 1, 5, 54, 4, 10, 0, 0, 1}))
	f.Add(packet(nil, nil, []byte{119, 4, 0xc0, 0, 0xc0, 0}))
}

func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		size := 0
		for _, v := range m.Options {
			size += len(v)
		}
		if size > len(b) {
			t.Errorf("%d bytes of options out of %d bytes", size, len(b))
		}
	})
}

// Whatever a server sends, a binding holds what its fields promise.
func FuzzBinding(f *testing.F) {
	for _, server := range []string{"dnsmasq", "kea-dhcp4", "dhcpd"} {
		b := readPacket(f, filepath.Join(testdata, server+"-ack.hex"))
		f.Add(binary.BigEndian.Uint32(b[16:]), b[optionsStart:])
	}
	must := []byte{54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 9}
	f.Add(uint32(0x0a000039), append(must, 1, 4, 255, 255, 255, 254, 119, 8, 1, 'a', 0, 0xc0, 0, 1, 'b', 0))
	f.Add(uint32(0xc0a80039), append(must, 33, 8, 172, 16, 0, 0, 192, 168, 0, 1, 121, 8, 24, 10, 1, 2, 192, 168, 0, 1))
	f.Fuzz(func(t *testing.T, yiaddr uint32, options []byte) {
		b := packet(nil, nil, options)
		binary.BigEndian.PutUint32(b[16:], yiaddr)
		m, err := Decode(b)
		if err != nil {
			return
		}
		if got, err := newBinding(m); err == nil {
			checkBinding(t, got)
		}
	})
}

func checkBinding(t *testing.T, b Binding) {
	t.Helper()
	own := b.Address.Addr()
	ok := func(what string, good bool) {
		t.Helper()
		if !good {
			t.Errorf("%s: %+v", what, b)
		}
	}
	host := func(a netip.Addr) bool {
		return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] < 240
	}
	ok("address", host(own) && b.Address.Bits() >= 8 && b.Address.Bits() <= 32)
	if b.Address.Bits() < 31 {
		ok("network address", own != b.Address.Masked().Addr())
		ok("broadcast address", b.Address.Contains(own.Next()))
	}
	ok("server", host(b.Server))
	ok("router", !b.Router.IsValid() || host(b.Router) && b.Router != own)
	ok("times", b.T1 > 0 && b.T1 < b.T2 && b.T2 < b.Lease && b.Lease >= time.Second && b.Lease <= Infinite)
	ok("counts", len(b.Routes) <= maxRoutes && len(b.DNS) <= maxServers && len(b.NTP) <= maxServers && len(b.Search) <= maxSearch)
	ok("MTU", b.MTU == 0 || b.MTU >= minMTU)
	for _, r := range b.Routes {
		ok("route", r.Dst == r.Dst.Masked() && r.Dst.Bits() > 0 && !r.Dst.Addr().IsMulticast() && !r.Dst.Addr().IsLoopback())
		ok("via", !r.Via.IsValid() || host(r.Via) && r.Via != own)
	}
	for _, a := range append(b.DNS, b.NTP...) {
		ok("server list", host(a))
	}
	for _, s := range append(b.Search, b.Domain, b.Hostname) {
		ok("name", len(s) <= 253 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == "" && !strings.Contains(s, ".."))
	}
}
