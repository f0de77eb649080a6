// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/lab"
)

// TestConflict offers addresses that another host, and this host itself, have.
func TestConflict(t *testing.T) {
	s := newSite(t)
	lan := s.LAN("lan")
	type holder struct {
		mac  string
		addr netip.Addr
		args []string
		// moves: the attach goes on to another address.
		moves bool
	}
	cases := map[string]holder{
		"fast":  {"02:00:00:00:00:01", lan.Addr(5<<8 | 1), []string{"--timeout", "5s"}, false},
		"wait":  {"02:00:00:00:00:02", lan.Addr(5<<8 | 2), []string{"--timeout", "8s", "--conflict-check", "wait"}, false},
		"host":  {"02:00:00:00:00:03", lan.Addr(5<<8 | 3), []string{"--timeout", "5s"}, false},
		"moves": {"02:00:00:00:00:04", lan.Addr(5<<8 | 4), nil, true},
		"async": {"02:00:00:00:00:05", lan.Addr(5<<8 | 5), []string{"--conflict-check", "async"}, true},
	}
	reserved := map[string]netip.Addr{}
	squatter := s.Host("squatter")
	for name, h := range cases {
		reserved[h.mac] = h.addr
		on := squatter
		if name == "host" {
			on = s.h
		}
		on.AddAddr(lab.Uplink, netip.PrefixFrom(h.addr, 16).String())
	}
	server := s.Dnsmasq(lab.ServerOptions{Reserved: reserved})
	declined := func(h holder) {
		s.wire.Wait(soon, "DECLINE of "+h.addr.String(), func(p lab.Packet) bool {
			return p.Is(dhcpv4.MessageTypeDecline, nil) && p.DHCP.ClientHWAddr.String() == h.mac && p.DHCP.RequestedIPAddress().Equal(h.addr.AsSlice()) &&
				p.DHCP.ServerIdentifier().Equal(server.Addr.AsSlice())
		})
	}
	containers := map[string]*lab.Container{}
	for name := range cases {
		containers[name] = s.Container(name)
	}
	var all sync.WaitGroup
	for name, h := range cases {
		c := containers[name]
		all.Go(func() {
			r := s.k.Run(append([]string{"attach", c.Target(), "--parent", lab.Uplink, "--mac", h.mac}, h.args...)...)
			if want := map[bool]int{false: 4, true: 0}[h.moves]; r.Status != want {
				t.Errorf("%s: want status %d: %v", name, want, r)
			}
		})
	}
	all.Wait()
	for name, h := range cases {
		c := containers[name]
		declined(h)
		if !h.moves {
			if links := c.Links(); len(links) != 0 {
				t.Errorf("%s: left behind: %+v", name, links)
			}
			if l, ok := server.Lease(h.mac); ok {
				t.Errorf("%s: the server still has %+v", name, l)
			}
			continue
		}
		s.Eventually(2*soon, name+" has another address, as the server says", func() bool {
			a := c.Addr("eth0").Prefix.Addr()
			l, ok := server.Lease(h.mac)
			return a.IsValid() && a != h.addr && ok && l.Addr == a
		})
		// At least 10 s lie between the DECLINE and the next DISCOVER (RFC 2131, 3.1.5).
		packets := s.wire.Match(func(p lab.Packet) bool { return p.DHCP != nil && p.DHCP.ClientHWAddr.String() == h.mac })
		for i, p := range packets {
			if p.Type() != dhcpv4.MessageTypeDecline {
				continue
			}
			for _, later := range packets[i+1:] {
				if wait := later.Time.Sub(p.Time).Seconds(); later.Type() == dhcpv4.MessageTypeDiscover && wait < 9.9 {
					t.Errorf("%s: DISCOVER %.1f s after the DECLINE", name, wait)
				}
			}
		}
	}
	if ls := s.leases(); len(ls) != 2 {
		t.Errorf("leases %+v, want two", ls)
	}
}
