// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Repair puts back what Apply(cfg) had put on the child and somebody took away,
// and says what that was, in words. A child that lacks nothing is not touched.
// With a cfg that has no address, only a link that was set down is looked at.
func (k *Kernel) Repair(ns *NS, child Child, cfg Config) (repaired []string, err error) {
	if cfg.Address.IsValid() {
		if err := cfg.check(); err != nil {
			return nil, err
		}
	}
	err = onChild(ns, child, func(c *conn, l link) error {
		before, prefixRoute, err := k.missing(c, l, &cfg)
		if err != nil || len(before) == 0 {
			return err
		}
		if err := k.setUp(c, l, 0); err != nil {
			return err
		}
		if prefixRoute {
			if err := c.addRoute(cfg.prefixRoute(l.index)); err != nil {
				return fmt.Errorf("add the route to %s: %w", cfg.Address.Masked(), err)
			}
		}
		if cfg.Address.IsValid() {
			if err := k.configure(c, l.index, &cfg); err != nil && !errors.Is(err, ErrRoute) {
				return err
			}
		}
		if l, err = c.child(own, child); err != nil {
			return err
		}
		after, _, err := k.missing(c, l, &cfg)
		for _, what := range before {
			if !slices.Contains(after, what) {
				repaired = append(repaired, what)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("put back what is missing on %s in namespace %s: %w", child.Name, ns.id.Path, err)
	}
	return repaired, nil
}

// missing lists what cfg wants and the link lacks. prefixRoute is set when the
// address is there without its prefix route, through which others lead.
func (k *Kernel) missing(c *conn, l link, cfg *Config) (lacks []string, prefixRoute bool, err error) {
	if !l.up() {
		lacks = append(lacks, "link up")
	}
	if !cfg.Address.IsValid() {
		return lacks, false, nil
	}
	all, err := c.addresses(l.index)
	if err != nil {
		return nil, false, err
	}
	have, err := c.routes()
	if err != nil {
		return nil, false, err
	}
	addressed := slices.ContainsFunc(all, func(a address) bool { return a.prefix == cfg.Address })
	if !addressed {
		lacks = append(lacks, "address "+cfg.Address.String())
	}
	if want := cfg.prefixRoute(l.index); want.dst.Bits() < 32 && !slices.ContainsFunc(have, want.leadsAs) {
		lacks, prefixRoute = append(lacks, "route to "+want.dst.String()), addressed
	}
	for _, r := range cfg.plan(l.index, have) {
		if !slices.Contains(have, r) {
			lacks = append(lacks, r.words())
		}
	}
	return lacks, prefixRoute, nil
}

// prefixRoute is the route that the kernel makes with an address
// (net/ipv4/fib_frontend.c, fib_add_ifaddr). It isn't made again when the
// address is put there once more.
func (cfg *Config) prefixRoute(index int) route {
	return route{
		index: index, dst: cfg.Address.Masked(), src: cfg.Address.Addr(), metric: cfg.Metric,
		proto: unix.RTPROT_KERNEL, typ: unix.RTN_UNICAST,
	}
}

// leadsAs tells whether o does r's work, whoever made it.
func (r route) leadsAs(o route) bool {
	return o.index == r.index && o.dst == r.dst && o.src == r.src && o.typ == r.typ && !o.via.IsValid()
}

func (r *route) words() string {
	dst := r.dst.String()
	if r.dst == netip.PrefixFrom(netip.IPv4Unspecified(), 0) {
		dst = "default"
	}
	if r.via.IsValid() {
		return "route to " + dst + " via " + r.via.String()
	}
	return "route to " + dst
}

// FollowMTU gives the child its parent's MTU, or most when that is less and not
// 0, provided that it has the MTU was. The kernel lowers children with their
// parent (drivers/net/macvlan.c, NETDEV_CHANGEMTU) and doesn't raise them again.
func (k *Kernel) FollowMTU(ns *NS, child Child, was, most int) error {
	err := onChild(ns, child, func(c *conn, l link) error {
		if l.mtu != was {
			return nil
		}
		mtu, err := k.parentMTU(c, l)
		if most != 0 {
			mtu = min(mtu, most)
		}
		if err != nil || mtu == l.mtu {
			return err
		}
		return c.setLink(l.index, false, numberAttr(unix.IFLA_MTU, mtu))
	})
	if err != nil {
		return fmt.Errorf("set the MTU of %s in namespace %s: %w", child.Name, ns.id.Path, err)
	}
	return nil
}
