// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// routes returns the default router and the routes beside it. Option 121, where
// it is well-formed, makes options 3 and 33 count for nothing (RFC 3442).
func routes(o dhcpv4.Options, own netip.Prefix) (netip.Addr, []Route) {
	t := table{own: own}
	if t.classless(o.Get(dhcpv4.OptionClasslessStaticRoute)) {
		return t.router, t.routes
	}
	t = table{own: own}
	t.static(o.Get(dhcpv4.OptionStaticRoutingTable))
	t.router = router(o.Get(dhcpv4.OptionRouter), own)
	return t.router, t.routes
}

// router is the first router of option 3 on the link, or where none is (a /32
// lease), the first that is a host's address at all.
func router(v []byte, own netip.Prefix) netip.Addr {
	var first netip.Addr
	for ; len(v) >= 4; v = v[4:] {
		a := netip.AddrFrom4([4]byte(v))
		switch {
		case !unicast(a) || a == own.Addr():
		case own.Contains(a):
			return a
		case !first.IsValid():
			first = a
		}
	}
	return first
}

// table collects routes, the first to a destination wins.
type table struct {
	own    netip.Prefix
	router netip.Addr
	routes []Route
}

// classless reads option 121 (RFC 3442) and reports whether it was there and
// well-formed.
func (t *table) classless(v []byte) bool {
	if len(v) == 0 {
		return false
	}
	for len(v) > 0 {
		bits := int(v[0])
		significant := (bits + 7) / 8
		if bits > 32 || len(v) < 1+significant+4 {
			return false
		}
		var dst [4]byte
		copy(dst[:], v[1:1+significant])
		via := netip.AddrFrom4([4]byte(v[1+significant:]))
		t.add(netip.PrefixFrom(netip.AddrFrom4(dst), bits).Masked(), via)
		v = v[1+significant+4:]
	}
	return true
}

// static reads option 33 (RFC 2132, 5.8). A destination has the mask of its
// class, or is a single host where that mask would cut bits off.
func (t *table) static(v []byte) {
	for ; len(v) >= 8; v = v[8:] {
		a, via := netip.AddrFrom4([4]byte(v)), netip.AddrFrom4([4]byte(v[4:]))
		if !unicast(a) || !unicast(via) {
			continue
		}
		dst := netip.PrefixFrom(a, classBits(a))
		if dst.Masked() != dst {
			dst = netip.PrefixFrom(a, 32)
		}
		t.add(dst, via)
	}
}

// add leaves out what no kernel should be told: routes to loopback, multicast
// and reserved addresses, routes through such an address or through ourselves,
// and a default route without a router.
func (t *table) add(dst netip.Prefix, via netip.Addr) {
	onLink := via.IsUnspecified()
	if !onLink && (!unicast(via) || via == t.own.Addr()) {
		return
	}
	if dst.Bits() == 0 {
		if !onLink && !t.router.IsValid() {
			t.router = via
		}
		return
	}
	if !routable(dst) || len(t.routes) >= maxRoutes {
		return
	}
	for _, r := range t.routes {
		if r.Dst == dst {
			return
		}
	}
	if onLink {
		via = netip.Addr{}
	}
	t.routes = append(t.routes, Route{Dst: dst, Via: via})
}

// routable lets halves and quarters of all addresses pass (0.0.0.0/1 and
// 128.0.0.0/1 are how some networks write a default route).
func routable(dst netip.Prefix) bool {
	if dst.Bits() < 4 {
		return dst.Addr().As4()[0] < 224
	}
	return unicast(dst.Addr()) || dst.Addr().IsUnspecified() && dst.Bits() < 8
}
