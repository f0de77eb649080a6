// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestKeepLease detaches without a RELEASE and comes back to the same address by
// INIT-REBOOT (RFC 2131, 4.3.2).
func TestKeepLease(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	c := s.Container("c")
	l := s.attach(c)
	s.k.MustRun("detach", c.Target(), "--keep-lease")
	s.bare(c)
	if got, ok := server.Lease(l.MAC); !ok || got.Addr != addr(t, l) {
		t.Errorf("the server has %+v", got)
	}
	s.k.Restart() // the record is there for the next keeper too
	mark := s.wire.Mark()
	again := s.attach(c)
	if again.Address != l.Address || again.MAC != l.MAC || c.Addr("eth0").Prefix.String() != l.Address {
		t.Errorf("again %+v, before %+v", again, l)
	}
	p := s.wire.WaitAfter(mark, soon, "REQUEST", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeRequest, nil) })
	if !p.DHCP.RequestedIPAddress().Equal(addr(t, l).AsSlice()) || p.DHCP.ServerIdentifier() != nil || !p.DHCP.ClientIPAddr.IsUnspecified() || !p.L3Broadcast() {
		t.Errorf("INIT-REBOOT sends %v", p)
	}
	s.silent(dhcpv4.MessageTypeDiscover, mark)
	s.silent(dhcpv4.MessageTypeRelease, 0)
	// A container that is made again under its name is the same identity.
	s.k.MustRun("detach", c.Target(), "--keep-lease")
	other := s.Container("other")
	if moved := s.attach(other, "--identity", l.Identity); moved.Address != l.Address {
		t.Errorf("address %s in another namespace, want %s", moved.Address, l.Address)
	}
	s.k.MustRun("release", l.Identity)
	server.WaitEmpty(soon)
	s.bare(other)
}

// TestRelease names leases in every way there is.
func TestRelease(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	c := s.Container("c")
	for what, name := range map[string]func(api.Lease) string{
		"id":       func(l api.Lease) string { return l.ID },
		"identity": func(l api.Lease) string { return l.Identity },
		"target":   func(api.Lease) string { return c.Target() },
		"address":  func(l api.Lease) string { return addr(t, l).String() },
		"MAC":      func(l api.Lease) string { return l.MAC },
	} {
		l := s.attach(c)
		m, a, mark := mac(t, l), addr(t, l), s.wire.Mark()
		s.k.MustRun("release", name(l))
		s.wire.WaitAfter(mark, soon, "RELEASE by "+what+" from the leased address", func(p lab.Packet) bool {
			return p.Is(dhcpv4.MessageTypeRelease, m) && p.SrcIP == a && p.DHCP.ClientIPAddr.Equal(a.AsSlice())
		})
		server.WaitEmpty(soon)
		s.bare(c)
	}
	if ended := s.leases("--all"); len(ended) != 5 {
		t.Errorf("%d ended leases, want 5", len(ended))
	}
}

// TestReleaseFindsServer: the namespace is gone, and the server has another MAC
// than it had when the lease was made, as after a failover.
func TestReleaseFindsServer(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	c := s.Container("c")
	l := s.attach(c)
	err := server.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if link.Attrs().Flags&net.FlagLoopback != 0 {
				continue
			}
			if err := netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0xfa, 0x11}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Delete()
	s.wire.Wait(soon, "RELEASE to the new MAC", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRelease, mac(t, l)) && p.DstMAC.String() == "02:00:00:00:fa:11"
	})
	server.WaitEmpty(soon)
}
