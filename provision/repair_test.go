// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

var routed = Config{
	Address: prefix("10.80.0.5/24"), Lifetime: time.Hour, Router: addr("10.80.0.1"),
	Routes: []Route{{Dst: prefix("192.0.2.0/24"), Via: addr("10.80.0.2")}},
}

// What somebody takes away comes back and is named; what is all there is left
// alone.
func TestRepair(t *testing.T) {
	ipNet := func(s string) *net.IPNet { _, n, _ := net.ParseCIDR(s); return n }
	del := func(t *testing.T, nh *netlink.Handle, index int, dst *net.IPNet, gw string) {
		must(t, nh.RouteDel(&netlink.Route{LinkIndex: index, Dst: dst, Gw: net.ParseIP(gw)}))
	}
	for name, tc := range map[string]struct {
		harm func(t *testing.T, nh *netlink.Handle, l netlink.Link)
		want []string
	}{
		"nothing": {func(*testing.T, *netlink.Handle, netlink.Link) {}, nil},
		"down": {func(t *testing.T, nh *netlink.Handle, l netlink.Link) { must(t, nh.LinkSetDown(l)) },
			[]string{"link up", "route to 10.80.0.0/24", "route to default via 10.80.0.1", "route to 192.0.2.0/24 via 10.80.0.2"}},
		"address": {func(t *testing.T, nh *netlink.Handle, l netlink.Link) {
			a, err := netlink.ParseAddr("10.80.0.5/24")
			must(t, err)
			must(t, nh.AddrDel(l, a))
		}, []string{"address 10.80.0.5/24", "route to 10.80.0.0/24", "route to default via 10.80.0.1", "route to 192.0.2.0/24 via 10.80.0.2"}},
		"default route": {func(t *testing.T, nh *netlink.Handle, l netlink.Link) {
			del(t, nh, l.Attrs().Index, nil, "10.80.0.1")
		}, []string{"route to default via 10.80.0.1"}},
		"classless route": {func(t *testing.T, nh *netlink.Handle, l netlink.Link) {
			del(t, nh, l.Attrs().Index, ipNet("192.0.2.0/24"), "10.80.0.2")
		}, []string{"route to 192.0.2.0/24 via 10.80.0.2"}},
		"all routes": {func(t *testing.T, nh *netlink.Handle, l netlink.Link) {
			all, err := nh.RouteList(l, netlink.FAMILY_V4)
			must(t, err)
			for _, r := range all {
				must(t, nh.RouteDel(&r))
			}
		}, []string{"route to 10.80.0.0/24", "route to default via 10.80.0.1", "route to 192.0.2.0/24 via 10.80.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ns, c := h.child(t, 1)
			must(t, h.Apply(ns, c, routed))
			nh := handle(t, ns)
			l := linkNamed(t, nh, "eth0")
			before, err := nh.RouteList(l, netlink.FAMILY_V4)
			must(t, err)
			tc.harm(t, nh, l)
			got, err := h.Repair(ns, c, routed)
			must(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			after, err := nh.RouteList(l, netlink.FAMILY_V4)
			must(t, err)
			if len(before) != len(after) {
				t.Errorf("routes %v, were %v", after, before)
			}
			as, err := nh.AddrList(l, netlink.FAMILY_V4)
			must(t, err)
			if len(as) != 1 || as[0].IPNet.String() != "10.80.0.5/24" || as[0].ValidLft == 0 {
				t.Errorf("addresses %+v", as)
			}
			if got, err := h.Repair(ns, c, routed); err != nil || got != nil {
				t.Errorf("again: %v, %v", got, err)
			}
		})
	}
}

// A child without an address is brought up, and nothing else.
func TestRepairWithoutAddress(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, ns)
	must(t, nh.LinkSetDown(linkNamed(t, nh, "eth0")))
	got, err := h.Repair(ns, c, Config{})
	must(t, err)
	if !slices.Equal(got, []string{"link up"}) || linkNamed(t, nh, "eth0").Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("repaired %v", got)
	}
}

// A child follows its parent's MTU up again, as far as its own bound.
func TestFollowMTU(t *testing.T) {
	h := newHost(t)
	host := handle(t, h.ns)
	mtu := func(ns *NS) int { return linkNamed(t, handle(t, ns), "eth0").Attrs().MTU }
	free, freeChild := h.child(t, 1)
	bound, boundChild := h.child(t, 2)
	own, ownChild := h.child(t, 3)
	for mtu, ns := range map[int]*NS{1450: bound, 1300: own} {
		nh := handle(t, ns)
		must(t, nh.LinkSetMTU(linkNamed(t, nh, "eth0"), mtu))
	}
	must(t, host.LinkSetMTU(linkNamed(t, host, "p0"), 1400))
	if got := []int{mtu(free), mtu(bound), mtu(own)}; !slices.Equal(got, []int{1400, 1400, 1300}) {
		t.Fatal("with the parent at 1400:", got)
	}
	must(t, host.LinkSetMTU(linkNamed(t, host, "p0"), 1500))
	must(t, h.FollowMTU(free, freeChild, 1400, 0))
	must(t, h.FollowMTU(bound, boundChild, 1400, 1450))
	must(t, h.FollowMTU(own, ownChild, 1400, 0)) // set by hand, and no less than the parent had
	if got := []int{mtu(free), mtu(bound), mtu(own)}; !slices.Equal(got, []int{1500, 1450, 1300}) {
		t.Error("with the parent at 1500 again:", got)
	}
}

// What happens to a child from inside its namespace is told; what is set there
// by others is not.
func TestWatchChildChanged(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	must(t, h.Apply(ns, c, routed))
	events := watch(t, h)
	nh := handle(t, ns)
	l := linkNamed(t, nh, "eth0")
	await := func(what string, match func(Event) bool) {
		t.Helper()
		for {
			if e := nextOfAll(t, events); e.Kind == ChildChanged && e.NSID == c.NSID && e.Index == c.Index && match(e) {
				return
			}
		}
	}
	must(t, nh.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP("10.80.0.1")}))
	await("a route", func(e Event) bool { return e.Name == "" })
	a, err := netlink.ParseAddr("10.80.0.5/24")
	must(t, err)
	must(t, nh.AddrDel(l, a))
	await("the address", func(e Event) bool { return e.Name == "" })
	must(t, nh.LinkSetDown(l))
	await("down", func(e Event) bool { return e.Name == "eth0" && !e.Up })
	must(t, nh.LinkSetName(l, "lan9"))
	await("the name", func(e Event) bool { return e.Name == "lan9" })
	must(t, nh.LinkSetUp(l))
	await("up", func(e Event) bool { return e.Name == "lan9" && e.Up })

	// A thousand addresses and routes of somebody else's.
	for range 500 {
		b, err := netlink.ParseAddr("198.51.100.1/24")
		must(t, err)
		must(t, nh.AddrAdd(l, b))
		must(t, nh.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IP{203, 0, 113, 0}, Mask: net.CIDRMask(24, 32)}, Protocol: 4}))
		must(t, nh.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IP{203, 0, 113, 0}, Mask: net.CIDRMask(24, 32)}}))
		must(t, nh.AddrDel(l, b))
	}
	must(t, nh.LinkDel(l))
	n := 0
	for e := nextOfAll(t, events); e.Kind != ChildGone; e = nextOfAll(t, events) {
		if e.Name == "" {
			n++
		}
	}
	if n > 1010 { // the address and its prefix route
		t.Errorf("%d events for 500 addresses that went", n)
	}
}

// A child knows its parent where that is by now.
func TestFindChildParent(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	got, err := h.FindChild(ns, c)
	must(t, err)
	if got.Parent != h.parent.Index || got.Mode != Bridge {
		t.Errorf("parent %d, mode %q", got.Parent, got.Mode)
	}
	host := handle(t, h.ns)
	must(t, host.LinkSetDown(linkNamed(t, host, "p0")))
	must(t, host.LinkSetName(linkNamed(t, host, "p0"), "lan"))
	if p, err := h.ParentAt(got.Parent); err != nil || p.Name != "lan" {
		t.Errorf("%+v, %v", p, err)
	}
	must(t, host.LinkSetNsFd(linkNamed(t, host, "lan"), h.wire.FD()))
	if got, err = h.FindChild(ns, c); err != nil || got.Parent != 0 {
		t.Errorf("with the parent in another namespace: parent %d, %v", got.Parent, err)
	}
	// The wire's namespace has the parent now, and the child still hangs on it.
	if _, err := h.ParentAt(h.parent.Index); err == nil {
		t.Error("the parent is still on the host")
	}
}
