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
	if cfg.Router.IsValid() {
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0), cfg.Router)
	}
	for _, r := range cfg.Routes {
		add(r.Dst, r.Via)
	}
	return append(direct, through...)
}

// defaultMetric is the metric of the default route: the one asked for, or 0
// when no other link has a default route, or one that comes after those of the
// others. One that is there already stays as it is, so that two children of a
// namespace don't overtake each other with every renewal.
func (cfg *Config) defaultMetric(index int, have []route) int {
	if cfg.Metric != 0 {
		return cfg.Metric
	}
	last, others := 1000+index, false
	for _, r := range have {
		if !r.isDefault() || r.typ != unix.RTN_UNICAST {
			continue
		}
		if r.index != index {
			others = true
		} else if r.proto == unix.RTPROT_DHCP && (r.metric == 0 || r.metric == last) {
			return r.metric
		}
	}
	if others {
		return last
	}
	return 0
}
