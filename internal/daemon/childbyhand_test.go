// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestChildByHand changes children from inside, as people do.
func TestChildByHand(t *testing.T) {
	for name, tc := range map[string]struct {
		harm  func(t *testing.T, c *lab.Container, l api.Lease)
		event string
		text  string
	}{
		"set down": {func(_ *testing.T, c *lab.Container, _ api.Lease) { c.SetLink("eth0", false) }, "repaired", "link up"},
		"address":  {func(_ *testing.T, c *lab.Container, l api.Lease) { c.DelAddr("eth0", l.Address) }, "repaired", "address"},
		"routes": {func(t *testing.T, c *lab.Container, _ api.Lease) {
			must(t, c.Do(func() error {
				all, err := netlink.RouteList(nil, netlink.FAMILY_V4)
				for _, r := range all {
					if err == nil {
						err = netlink.RouteDel(&r)
					}
				}
				return err
			}))
		}, "repaired", "route to default"},
		"renamed": {func(t *testing.T, c *lab.Container, _ api.Lease) {
			must(t, c.Do(func() error {
				l, err := netlink.LinkByName("eth0")
				if err == nil {
					err = netlink.LinkSetDown(l)
				}
				if err == nil {
					err = netlink.LinkSetName(l, "lan9")
				}
				return err
			}))
		}, "changed", "renamed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{})
			c := s.Container("c")
			l := s.attach(c)
			routes := c.Routes()
			events := s.events()
			mark := s.wire.Mark()
			tc.harm(t, c, l)
			if e := events.await(tc.event); !strings.Contains(e.Message, tc.text) || e.Lease != l.ID {
				t.Errorf("event %+v", e)
			}
			ifname := map[bool]string{true: "lan9", false: "eth0"}[name == "renamed"]
			if link, _ := c.Link(ifname); !link.Up || c.Addr(ifname).Prefix.String() != l.Address {
				t.Errorf("%+v with %+v", link, c.Addrs(ifname))
			}
			if got := c.Routes(); len(got) != len(routes) {
				t.Errorf("routes %v, were %v", got, routes)
			}
			if _, err := c.Ping(server.Addr, soon); err != nil {
				t.Error(err)
			}
			if got := s.leases()[0]; got.Ifname != ifname || got.Address != l.Address || got.State != "bound" {
				t.Errorf("%+v", got)
			}
			for _, p := range s.wire.After(mark) {
				if p.DHCP != nil {
					t.Errorf("on the wire: %v", p)
				}
			}
			s.k.MustRun("detach", c.Target(), "--ifname", ifname)
			server.WaitEmpty(soon)
			s.bare(c)
		})
	}
}

// TestChildMoved takes a child to another namespace: its lease is given back.
func TestChildMoved(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	c, other := s.Container("c"), s.Container("other")
	s.attach(c)
	move(t, c.NS, "eth0", other.NS)
	server.WaitEmpty(soon)
	if ls := s.leases("--all"); len(ls) != 1 || !strings.Contains(ls[0].EndReason, "moved to another namespace") {
		t.Errorf("%+v", ls)
	}
}

func move(t *testing.T, from *lab.NS, ifname string, to *lab.NS) {
	t.Helper()
	ns, err := netns.GetFromPath(to.Path)
	must(t, err)
	defer ns.Close()
	must(t, from.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err == nil {
			err = netlink.LinkSetNsFd(l, int(ns))
		}
		return err
	}))
}
