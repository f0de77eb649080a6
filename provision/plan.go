// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// plan lists the routes that cfg wants on the link, in the order they are to be
// added: those on the link first, since others may lead through them. Of several
// to one destination the first counts, and the router's is the first.
func (cfg *Config) plan(index int, have []route) []route {
	onLink := cfg.Address.Masked()
	seen := map[netip.Prefix]bool{onLink: true} // the kernel's own route
	var direct, through []route
	add := func(dst netip.Prefix, via netip.Addr) {
		dst = dst.Masked()
		if !dst.IsValid() || !dst.Addr().Is4() || seen[dst] || via.IsValid() && !via.Is4() {
			return
		}
		seen[dst] = true
		r := route{
			index: index, dst: dst, src: cfg.Address.Addr(), metric: cfg.Metric,
			proto: unix.RTPROT_DHCP, typ: unix.RTN_UNICAST,
		}
		if r.isDefault() {
			r.metric = cfg.defaultMetric(index, have)
		}
		// RFC 3442: a router of 0.0.0.0 means that dst is on the link.
		if !via.IsValid() || via.IsUnspecified() {
			direct = append(direct, r)
			return
		}
		r.via, r.onlink = via, !onLink.Contains(via)
		through = append(through, r)
	}
	if cfg.Router.IsValid() && !cfg.leftToOthers(index, have) {
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), cfg.Router)
	}
	for _, r := range cfg.Routes {
		add(r.Dst, r.Via)
	}
	return append(direct, through...)
}

// leftToOthers tells whether a Shared child's default route is somebody else's.
func (cfg *Config) leftToOthers(index int, have []route) bool {
	if !cfg.Shared || cfg.Metric != 0 {
		return false
	}
	for _, r := range have {
		switch {
		case !r.isDefault() || r.typ != unix.RTN_UNICAST:
		case r.index != index:
			return true
		case r.proto != unix.RTPROT_DHCP && r.via == cfg.Router:
			return true
		}
	}
	return false
}

// replaced are the routes that others put on a Shared child and that give way
// to one of want.
func (cfg *Config) replaced(index int, have []route, want map[route]bool) (gone []route) {
	if !cfg.Shared {
		return nil
	}
	ours := map[netip.Prefix]bool{}
	for r := range want {
		ours[r.dst] = true
	}
	for _, r := range have {
		if r.index == index && ours[r.dst] && r.typ == unix.RTN_UNICAST && r.proto != unix.RTPROT_DHCP && r.proto != unix.RTPROT_KERNEL {
			gone = append(gone, r)
		}
	}
	return gone
}

// defaultMetric is the metric of the default route: the one asked for, or 0
// when no other link has a default route, or one that comes after those of the
// others. One that is there already stays as it is, so that two children of a
// namespace don't overtake each other with every renewal.
func (cfg *Config) defaultMetric(index int, have []route) int {
	if cfg.Metric != 0 {
		return cfg.Metric
	}
	last, others := 1000+index, cfg.Shared
	for _, r := range have {
		if !r.isDefault() || r.typ != unix.RTN_UNICAST {
			continue
		}
		if r.index != index {
			others = true
		} else if r.proto == unix.RTPROT_DHCP && (r.metric == 0 && !cfg.Shared || r.metric == last) {
			return r.metric
		}
	}
	if others {
		return last
	}
	return 0
}
