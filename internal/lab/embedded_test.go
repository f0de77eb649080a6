// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestEmbedded scripts the server's misbehaviour.
func TestEmbedded(t *testing.T) {
	l := New(t)
	s := l.Embedded(ServerOptions{Lease: 5 * time.Second, T1: 2 * time.Second, T2: 4 * time.Second})
	c := l.Host("h").Bare(Uplink)
	lie := func(req *dhcpv4.DHCPv4, r []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		for _, m := range r {
			m.UpdateOption(dhcpv4.OptDomainName("lie"))
		}
		return r
	}
	for _, tt := range []struct {
		name string
		hook Hook
		want string // domain, or part of the error
	}{
		{"honest", nil, "lab.test"},
		{"silent", func(*dhcpv4.DHCPv4, []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return nil }, "no OFFER in time"},
		{"NAK", func(req *dhcpv4.DHCPv4, r []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			if req.MessageType() == dhcpv4.MessageTypeRequest {
				r[0].UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
			}
			return r
		}, "refused"},
		{"lying", lie, "lie"},
		{"twice", func(_ *dhcpv4.DHCPv4, r []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return append(r, r...) }, "lab.test"},
	} {
		s.OnMessage(tt.hook)
		ack, err := c.DORA(500 * time.Millisecond)
		switch {
		case err != nil && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		case err == nil && ack.DomainName() != tt.want:
			t.Errorf("%s: domain %s, want %s", tt.name, ack.DomainName(), tt.want)
		}
	}
	s.OnMessage(nil)
	if got := s.Leases(); len(got) != 1 || got[0].MAC != c.MAC.String() {
		t.Errorf("leases %+v", got)
	}
	s.Stop()
	if _, err := c.DORA(300 * time.Millisecond); err == nil {
		t.Error("a stopped server answers")
	}
	s.Start()
	ack, err := c.DORA(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	release, err := dhcpv4.NewReleaseFromACK(ack)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(release, addrOf(ack.YourIPAddr)); err != nil {
		t.Fatal(err)
	}
	l.Eventually(5*time.Second, "no lease left", func() bool { return len(s.Leases()) == 0 })
}

// TestDecode never panics, and takes a whole frame for what it is.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 12), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1))
	f.Add(append(make([]byte, 12), 0x81, 0x00, 0, 100, 0x08, 0x00, 0x45, 0, 0, 30))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p := decode(frame)
		_ = p.String()
		_ = p.Unicast()
		pcap([]Packet{p})
	})
}
