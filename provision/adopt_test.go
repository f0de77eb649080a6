// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The default route of somebody else becomes ours in place, and only the one
// through the router that is asked for.
func TestTakeDefault(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, ns)
	l := linkNamed(t, nh, "eth0")
	must(t, nh.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 80, 0, 5), Mask: net.CIDRMask(24, 32)}}))
	defaults := func() (all []netlink.Route) {
		routes, err := nh.RouteList(l, netlink.FAMILY_V4)
		must(t, err)
		for _, r := range routes {
			if r.Gw != nil {
				all = append(all, r)
			}
		}
		return all
	}
	take := func(via string) bool {
		taken, err := h.TakeDefault(ns, c, addr(via), addr("10.80.0.5"))
		must(t, err)
		return taken
	}
	if take("10.80.0.1") || len(defaults()) != 0 {
		t.Errorf("taken where there is none: %v", defaults())
	}
	must(t, nh.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, 80, 0, 1)}))
	if take("10.80.0.2") || defaults()[0].Protocol == unix.RTPROT_DHCP {
		t.Errorf("another router's was taken: %v", defaults())
	}
	for range 2 {
		if !take("10.80.0.1") {
			t.Error("not taken")
		}
		if d := defaults(); len(d) != 1 || d[0].Protocol != unix.RTPROT_DHCP || !d[0].Src.Equal(net.IPv4(10, 80, 0, 5)) {
			t.Errorf("default routes %v", d)
		}
	}
	// What is ours now follows the lease.
	cfg := Config{Address: prefix("10.80.0.5/24"), Lifetime: time.Hour, Router: addr("10.80.0.9")}
	must(t, h.Apply(ns, c, cfg))
	if d := defaults(); len(d) != 1 || !d[0].Gw.Equal(net.IPv4(10, 80, 0, 9)) {
		t.Errorf("default routes %v after the router changed", d)
	}
}

// A link that somebody makes in the host's namespace and moves away is heard of
// once it is up, and leads to its namespace.
func TestWatchMovedLink(t *testing.T) {
	h := newHost(t)
	events := watch(t, h)
	name, _ := newNamed(t)
	ns, err := Open("/run/netns/" + name)
	must(t, err)
	defer ns.Close()
	hh, nh := handle(t, h.ns), handle(t, ns)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "vethabc", h.parent.Index
	must(t, hh.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}))
	l := linkNamed(t, hh, "vethabc")
	must(t, hh.LinkSetNsFd(l, ns.FD()))
	l = linkNamed(t, nh, "vethabc")
	must(t, nh.LinkSetHardwareAddr(l, mac(7)))
	if up, err := h.LinksUp(ns); err != nil || len(up) != 0 {
		t.Errorf("up before it was set up: %v, %v", up, err)
	}
	must(t, nh.LinkSetUp(l))
	for {
		e := nextOfAll(t, events)
		if e.Kind != ChildChanged || !e.Up || e.MAC.String() != mac(7).String() {
			continue
		}
		n, err := h.NamespaceOf(e.NSID)
		must(t, err)
		if n.Ino != ns.ID().Ino || n.Dev != ns.ID().Dev {
			t.Errorf("leads to %v, want %v", n, ns.ID())
		}
		break
	}
	if up, err := h.LinksUp(ns); err != nil || len(up) != 1 || up[0].MAC.String() != mac(7).String() || up[0].Index != l.Attrs().Index {
		t.Errorf("up: %v, %v", up, err)
	}
	if _, err := h.NamespaceOf(1 << 20); !errors.Is(err, ErrGone) {
		t.Errorf("namespace of an id that is not given: %v", err)
	}
}
