// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"mvdhcp/dhcpclient/wire"
	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// claim broadcasts ARP from a host's parent: the address is there.
func (s *site) claim(h *lab.Host, addr netip.Addr) {
	s.t.Helper()
	var conn *wire.ARPConn
	if err := h.Do(func() error {
		link, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		conn, err = wire.ListenARP(link.Attrs().Index, link.Attrs().HardwareAddr)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Announce(addr); err != nil {
		s.t.Fatal(err)
	}
}

// listens waits until n ARP listeners are open in the host's namespace
// (packet(7), /proc/net/packet).
func (s *site) listens(n int) {
	s.t.Helper()
	s.Eventually(soon, fmt.Sprintf("%d ARP listeners", n), func() bool {
		got := 0
		if err := s.h.Do(func() error {
			b, err := os.ReadFile("/proc/thread-self/net/packet")
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 3 && f[3] == "0806" {
					got++
				}
			}
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
		return got == n
	})
}

func announced(mac net.HardwareAddr, addr netip.Addr) func(lab.Packet) bool {
	return func(p lab.Packet) bool {
		return p.ARP != nil && p.ARP.Announcement() && p.ARP.SenderIP == addr && bytes.Equal(p.ARP.SenderMAC, mac)
	}
}

// TestConflictInUse has another host take an address long after the checks of
// the attach are over: the keeper defends it once and then gives it up.
func TestConflictInUse(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	other := s.Host("other")
	c := s.Container("c")
	l := s.attach(c, "--conflict-check", "wait")
	address, own := addr(t, l), mac(t, l)
	events := s.events()
	// The second announcement of the bind is the last thing that is sent.
	s.Eventually(soon, "both announcements", func() bool { return len(s.wire.Match(announced(own, address))) >= 2 })
	s.listens(1)

	mark := s.wire.Mark()
	s.claim(other, address)
	s.wire.WaitAfter(mark, soon, "defence of "+address.String(), announced(own, address))
	if e := events.await("conflict"); !strings.Contains(e.Message, address.String()) || !strings.Contains(e.Message, "defending") {
		t.Errorf("event %+v", e)
	}
	if now := s.leases(c.Target())[0]; now.State != "bound" || now.Address != l.Address || !strings.Contains(now.LastError, "used by") {
		t.Errorf("%+v", now)
	}
	time.Sleep(1100 * time.Millisecond) // what follows at once would be the same claim
	mark = s.wire.Mark()
	s.claim(other, address)
	decline := s.wire.WaitAfter(mark, soon, "DECLINE", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeDecline, own) && p.DHCP.RequestedIPAddress().Equal(address.AsSlice()) && p.DHCP.ServerIdentifier().Equal(server.Addr.AsSlice())
	})
	s.Eventually(soon, "the address is off", func() bool { return !c.Addr("eth0").Prefix.IsValid() })
	s.Eventually(2*soon, "another address, as the server says", func() bool {
		a := c.Addr("eth0").Prefix.Addr()
		entry, ok := server.Lease(l.MAC)
		return a.IsValid() && a != address && ok && entry.Addr == a
	})
	discover := s.wire.WaitAfter(mark, soon, "DISCOVER", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, own) })
	if wait := discover.Time.Sub(decline.Time); wait < 9900*time.Millisecond {
		t.Errorf("DISCOVER %v after the DECLINE", wait)
	}
	var ls []api.Lease
	s.k.JSON(&ls, "leases")
	if len(ls) != 1 || ls[0].State != "bound" {
		t.Errorf("%+v", ls)
	}
	s.k.MustRun("detach", c.Target())
	s.listens(0)
	server.WaitEmpty(soon)
}
