// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrRoute: the kernel refused one or more routes; everything else of the
// Config is in place. The message names the routes.
var ErrRoute = errors.New("route refused")

// Apply makes the child match cfg: the new address first, then the routes,
// then what an earlier Apply left and cfg no longer has is taken off. Doing it
// again changes nothing but the address's lifetimes. A link that was set down is
// brought up, and the MTU never goes above the parent's.
//
// Ours are the addresses marked so (IFA_PROTO; before Linux 5.18, those that
// have an end) and the child's routes of protocol dhcp. Addresses and routes
// that others set on the child stay, except that a route of protocol dhcp is
// taken for ours. Our routes carry the leased address as preferred source, so
// the kernel drops them with it.
//
// ErrInvalid: cfg can't be applied to any child. ErrRoute: see there.
func (k *Kernel) Apply(ns *NS, child Child, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	err := onChild(ns, child, func(c *conn, l link) error {
		if err := k.setUp(c, l, cfg.MTU); err != nil {
			return err
		}
		return k.configure(c, l.index, &cfg)
	})
	if err != nil {
		return fmt.Errorf("configure %s in namespace %s: %w", child.Name, ns.id.Path, err)
	}
	return nil
}

// Unconfigure takes our addresses and routes off the child, which stays.
func (k *Kernel) Unconfigure(ns *NS, child Child) error {
	err := onChild(ns, child, func(c *conn, l link) error {
		if err := c.dropRoutes(l.index, nil); err != nil {
			return err
		}
		all, err := c.addresses(l.index)
		if err != nil {
			return err
		}
		if stale := k.stale(all, netip.Prefix{}); len(stale) > 0 {
			return c.takeOff(l.index, all, stale)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take the address off %s in namespace %s: %w", child.Name, ns.id.Path, err)
	}
	return nil
}

func (cfg *Config) check() error {
	a := cfg.Address.Addr()
	switch {
	case !cfg.Address.IsValid() || !a.Is4() || cfg.Address.Bits() == 0:
		return faultf(ErrInvalid, "address %s: not an IPv4 address with a length of 1 to 32", cfg.Address)
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return faultf(ErrInvalid, "address %s: not an address a host can have", cfg.Address)
	case cfg.Router.IsValid() && !cfg.Router.Is4():
		return faultf(ErrInvalid, "router %s: not an IPv4 address", cfg.Router)
	case cfg.Metric < 0 || int64(cfg.Metric) > 1<<32-1:
		return faultf(ErrInvalid, "metric %d: must be between 0 and 4294967295", cfg.Metric)
	case cfg.MTU < 0:
		return faultf(ErrInvalid, "MTU %d: must not be negative", cfg.MTU)
	}
	return nil
}

// setUp brings the link up, with this MTU or the parent's when that is less.
func (k *Kernel) setUp(c *conn, l link, mtu int) error {
	var attrs []*nl.RtAttr
	if mtu != 0 && mtu != l.mtu {
		most, err := k.parentMTU(c, l)
		if err != nil {
			return err
		}
		if mtu = min(mtu, most); mtu != l.mtu {
			attrs = append(attrs, numberAttr(unix.IFLA_MTU, mtu))
		}
	}
	if l.up() && attrs == nil {
		return nil
	}
	if err := c.setLink(l.index, true, attrs...); err != nil {
		return fmt.Errorf("bring up with MTU %d: %w", mtu, err)
	}
	return nil
}

// parentMTU reads the MTU of a child's parent, wherever that is.
func (k *Kernel) parentMTU(c *conn, l link) (mtu int, err error) {
	read := func(c *conn) error {
		parent, err := c.linkByIndex(own, l.parent)
		if err != nil {
			return fmt.Errorf("read the MTU of the parent: %w", err)
		}
		mtu = parent.mtu
		return nil
	}
	if l.parentNSID < 0 {
		return mtu, read(c)
	}
	err = k.onHost(read)
	return mtu, err
}

// configure runs passes until one leaves nothing to be done after it: taking an
// old address off may take routes and addresses along that cfg wants.
func (k *Kernel) configure(c *conn, index int, cfg *Config) error {
	var refused error
	for range 3 {
		all, err := c.addresses(index)
		if err != nil {
			return err
		}
		if err := c.putAddress(k.leased(index, cfg)); err != nil {
			return fmt.Errorf("set address %s: %w", cfg.Address, err)
		}
		if refused, err = c.putRoutes(index, cfg); err != nil {
			return err
		}
		stale := k.stale(all, cfg.Address)
		if len(stale) == 0 {
			break
		}
		if err := c.takeOff(index, all, stale); err != nil {
			return err
		}
	}
	return refused
}

// stale are our addresses that are not the one to keep.
func (k *Kernel) stale(all []address, keep netip.Prefix) []address {
	var stale []address
	for _, a := range all {
		if k.owns(a) && a.prefix != keep {
			stale = append(stale, a)
		}
	}
	return stale
}

// putRoutes adds the routes that cfg wants and that are missing, then deletes
// ours that it doesn't want. Routes that the kernel refuses are reported and
// keep nothing else from being done.
func (c *conn) putRoutes(index int, cfg *Config) (refused, err error) {
	have, err := c.routes()
	if err != nil {
		return nil, err
	}
	there := make(map[route]bool, len(have))
	for _, r := range have {
		there[r] = true
	}
	want := map[route]bool{}
	var failed []error
	for _, r := range cfg.plan(index, have) {
		want[r] = true
		if there[r] {
			continue
		}
		if err := c.addRoute(r); err != nil {
			failed = append(failed, fmt.Errorf("route to %s via %s: %w", r.dst, r.via, err))
		}
	}
	if failed != nil {
		refused = fmt.Errorf("%w: %w", ErrRoute, errors.Join(failed...))
	}
	for _, r := range cfg.replaced(index, have, want) {
		if err := c.deleteRoute(r); err != nil {
			return refused, fmt.Errorf("delete the route to %s: %w", r.dst, err)
		}
	}
	return refused, c.deleteRoutes(index, have, want)
}

// dropRoutes deletes our routes on the link but those in keep.
func (c *conn) dropRoutes(index int, keep map[route]bool) error {
	have, err := c.routes()
	if err != nil {
		return err
	}
	return c.deleteRoutes(index, have, keep)
}

func (c *conn) deleteRoutes(index int, have []route, keep map[route]bool) error {
	for _, r := range have {
		if r.index != index || r.proto != unix.RTPROT_DHCP || keep[r] {
			continue
		}
		if err := c.deleteRoute(r); err != nil {
			return fmt.Errorf("delete the route to %s: %w", r.dst, err)
		}
	}
	return nil
}
