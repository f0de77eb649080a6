// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/lab"
)

// TestRebind has a server that is deaf to renewals until the client broadcasts.
func TestRebind(t *testing.T) {
	s := newSite(t)
	server := s.Embedded(lab.ServerOptions{Lease: 14 * time.Second, T1: 2 * time.Second, T2: 4 * time.Second})
	var hears atomic.Bool
	server.OnMessage(func(req *dhcpv4.DHCPv4, replies []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		if !req.ClientIPAddr.IsUnspecified() && !hears.Load() {
			return nil
		}
		return replies
	})
	events := s.events()
	c := s.Container("c")
	l := s.attach(c)
	first := s.renewed(l, 0)
	m, a := mac(t, l), addr(t, l)
	rebind := s.wire.Wait(soon, "broadcast REQUEST of REBINDING", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, m) && p.L2Broadcast() && p.L3Broadcast() && p.SrcIP == a && p.DHCP.ClientIPAddr.Equal(a.AsSlice())
	})
	if rebind.Time.Before(first.Time) || rebind.DHCP.ServerIdentifier() != nil || rebind.DHCP.RequestedIPAddress() != nil {
		t.Errorf("REBINDING sends %v after %v (RFC 2131, 4.3.2)", rebind, first)
	}
	hears.Store(true)
	if ev := events.await("rebound"); ev.Address != l.Address {
		t.Errorf("event %+v, want address %s", ev, l.Address)
	}
	if got := c.Addr("eth0").Prefix.String(); got != l.Address {
		t.Errorf("address %s, want %s", got, l.Address)
	}
	s.silent(dhcpv4.MessageTypeDiscover, s.discovers(l.MAC, 1))
}

// discovers returns the mark after the n-th DISCOVER of a client.
func (s *site) discovers(mac string, n int) int {
	s.t.Helper()
	for i, p := range s.wire.All() {
		if p.Is(dhcpv4.MessageTypeDiscover, nil) && p.DHCP.ClientHWAddr.String() == mac {
			if n--; n == 0 {
				return i + 1
			}
		}
	}
	s.t.Fatalf("%s sent too few DISCOVERs:\n%s", mac, s.wire)
	return 0
}

// TestNAK moves a server to another range: the lease is refused and another
// taken.
func TestNAK(t *testing.T) {
	s := newSite(t)
	lan := s.LAN("lan")
	server := s.Dnsmasq(lab.ServerOptions{T1: 3 * time.Second, T2: time.Minute, Last: lan.Addr(1<<8 | 200)})
	events := s.events()
	c := s.Container("c")
	l := s.attach(c)
	server.Options.First, server.Options.Last = lan.Addr(9<<8|1), lan.Addr(9<<8|200)
	server.Restart()
	s.wire.Wait(soon, "NAK", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeNak, nil) })
	events.await("nak")
	s.Eventually(soon, "an address of the new range alone", func() bool {
		a := c.Addr("eth0").Prefix.Addr()
		return a.IsValid() && a.Compare(server.Options.First) >= 0 && a.Compare(server.Options.Last) <= 0
	})
	if got := server.WaitLeases(soon, "the new lease", func(ls []lab.ServerLease) bool {
		return len(ls) > 0 && ls[len(ls)-1].Addr == c.Addr("eth0").Prefix.Addr()
	}); got[len(got)-1].MAC != l.MAC {
		t.Errorf("the server's leases: %+v", got)
	}
	if c.DefaultRoute() != server.Addr {
		t.Errorf("routes after the NAK: %v", c.Routes())
	}
}

// TestNAKTakesAddress has a server that refuses and then says nothing: the
// address is off although there is no other.
func TestNAKTakesAddress(t *testing.T) {
	s := newSite(t)
	server := s.Embedded(lab.ServerOptions{Lease: time.Hour, T1: 3 * time.Second})
	var refuses atomic.Bool
	server.OnMessage(func(req *dhcpv4.DHCPv4, replies []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		if !refuses.Load() {
			return replies
		}
		if req.MessageType() != dhcpv4.MessageTypeRequest {
			return nil
		}
		nak, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.Addr.AsSlice())))
		if err != nil {
			return nil
		}
		return []*dhcpv4.DHCPv4{nak}
	})
	c := s.Container("c")
	l := s.attach(c)
	mark := s.wire.Mark()
	refuses.Store(true)
	s.wire.WaitAfter(mark, soon, "DISCOVER after the NAK", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, nil) })
	if got := c.Addrs("eth0"); len(got) != 0 {
		t.Errorf("at the DISCOVER after the NAK the address is still there: %v", got)
	}
	if got := c.Routes(); len(got) != 0 {
		t.Errorf("routes after the NAK: %v", got)
	}
	refuses.Store(false)
	s.Eventually(2*soon, "an address again", func() bool { return c.Addr("eth0").Prefix.String() == l.Address })
}

// TestExpiry keeps the server away until the lease has run out.
func TestExpiry(t *testing.T) {
	s := newSite(t)
	server := s.Embedded(lab.ServerOptions{Lease: 6 * time.Second, T1: 2 * time.Second, T2: 4 * time.Second})
	events := s.events()
	c := s.Container("c")
	l := s.attach(c)
	server.Stop()
	s.Eventually(soon, "the address is gone", func() bool { return len(c.Addrs("eth0")) == 0 })
	if ev := events.await("expired"); ev.Identity != l.Identity {
		t.Errorf("event %+v", ev)
	}
	server.Start()
	s.Eventually(2*soon, "the address is back", func() bool { return c.Addr("eth0").Prefix.String() == l.Address })
	if c.DefaultRoute() != server.Addr {
		t.Errorf("routes: %v", c.Routes())
	}
}

// TestChange applies what an ACK changes and tells it.
func TestChange(t *testing.T) {
	s := newSite(t)
	lan := s.LAN("lan")
	server := s.Dnsmasq(lab.ServerOptions{T1: 3 * time.Second, Extra: []string{"--dhcp-option=option:mtu,1400"}})
	events := s.events()
	c := s.Container("c")
	p, root := c.SleepInRoot(map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\n"})
	l := s.attachTarget(target(p), "--dns")
	server.Options.Router, server.Options.DNS = lan.Addr(2), []netip.Addr{lan.Addr(54)}
	server.Options.Extra = []string{"--dhcp-option=option:mtu,1300", "--dhcp-option=option:classless-static-route,0.0.0.0/0,10.80.0.2,192.168.9.0/24,10.80.0.4"}
	server.Restart()
	ev := events.await("changed")
	old := map[string]string{"router": "10.80.0.1", "mtu": "1400", "dns": "[10.80.0.53]"}
	now := map[string]string{"router": "10.80.0.2", "mtu": "1300", "dns": "[10.80.0.54]"}
	for field := range now {
		if ev.Old[field] != old[field] || ev.New[field] != now[field] {
			t.Errorf("event: %s %q → %q, want %q → %q", field, ev.Old[field], ev.New[field], old[field], now[field])
		}
	}
	if diff := cmp.Diff([]string{"0.0.0.0/0 via 10.80.0.2 dev eth0", "192.168.9.0/24 via 10.80.0.4 dev eth0"}, routes(c)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if link, _ := c.Link("eth0"); link.MTU != 1300 {
		t.Errorf("MTU %d, want 1300", link.MTU)
	}
	if text, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf")); err != nil || !strings.Contains(string(text), "nameserver 10.80.0.54\n") || strings.Contains(string(text), "10.80.0.53") {
		t.Errorf("resolv.conf %q, %v", text, err)
	}
	if got := c.Addr("eth0").Prefix.String(); got != l.Address {
		t.Errorf("address %s, want %s", got, l.Address)
	}
}
