// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Park moves the child out of its namespace into the host's, where it is down
// and keeps its name, MAC, mode and alias, and returns it as it is there. mtu,
// when not 0, is set first, at most the parent's. The child's addresses and
// routes go with the move: the kernel sets a link down that it moves
// (net/core/dev.c, __dev_change_net_namespace).
func (k *Kernel) Park(ns *NS, child Child, mtu int) (Child, error) {
	err := onChild(ns, child, func(c *conn, l link) error {
		if err := k.setMTU(c, l, mtu); err != nil {
			return err
		}
		return c.setLink(l.index, false, numberAttr(unix.IFLA_NET_NS_FD, k.host.FD()))
	})
	if err != nil {
		return Child{}, fmt.Errorf("move %s from namespace %s to the host's: %w", child.Name, ns.id.Path, err)
	}
	return k.parked(child)
}

// CreateParked makes a child as Park leaves one: in the host's namespace, down.
// Its MAC is checked against others on the parent only when it is brought up.
func (k *Kernel) CreateParked(spec ChildSpec, mtu int) (Child, error) {
	if err := checkName(spec.Name); err != nil {
		return Child{}, err
	}
	if err := spec.check(); err != nil {
		return Child{}, err
	}
	err := k.onHost(func(c *conn) error { return c.createDown(k.host.FD(), spec, spec.Name) })
	if errors.Is(err, unix.EEXIST) {
		err = errNameTaken
	}
	if err != nil {
		return Child{}, spec.explain(err, k.host, spec.Name)
	}
	child, err := k.parked(Child{Name: spec.Name, MAC: spec.MAC})
	if err != nil {
		k.unmake(spec)
		return Child{}, err
	}
	err = k.onHost(func(c *conn) error {
		l, err := c.child(own, child)
		if err != nil {
			return err
		}
		if err := c.setLink(l.index, false, aliasAttr(spec.Alias)); err != nil {
			return err
		}
		return k.setMTUOf(c, l, mtu, spec.Parent.MTU)
	})
	if err != nil {
		_ = k.DeleteChild(k.host, child)
		return Child{}, fmt.Errorf("set up %s: %w", spec.Name, err)
	}
	return child, nil
}

// unmake deletes what CreateParked made, if it can be read by now.
func (k *Kernel) unmake(spec ChildSpec) {
	_ = inNS(k.host, func(c *conn) error {
		l, err := c.linkByName(own, spec.Name)
		if err != nil || !isChild(l, spec.MAC) {
			return err
		}
		return c.deleteLink(own, l.index)
	})
}

// DeleteParked deletes the macvlan link of this name in the host's namespace
// when its alias starts with prefix. One that isn't there, or is another's, is
// left alone without an error.
func (k *Kernel) DeleteParked(name, prefix string) error {
	// Deleting waits for the kernel: not on the socket that all share.
	err := inNS(k.host, func(c *conn) error {
		l, err := c.linkByName(own, name)
		if err != nil || l.kind != "macvlan" || !strings.HasPrefix(l.alias, prefix) {
			return err
		}
		return c.deleteLink(own, l.index)
	})
	if err != nil && !errors.Is(err, errNoLink) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// parked reads the child in the host's namespace by its name.
func (k *Kernel) parked(child Child) (Child, error) {
	l, err := k.hostLink(child.Name)
	switch {
	case errors.Is(err, errNoLink) || err == nil && !isChild(l, child.MAC):
		return Child{}, faultf(ErrGone, "%s (%s) is not in the host's namespace", child.Name, child.MAC)
	case err != nil:
		return Child{}, err
	}
	return Child{Name: l.name, Index: l.index, MAC: l.mac, NSID: -1}, nil
}

func (k *Kernel) setMTU(c *conn, l link, mtu int) error {
	if mtu == 0 {
		return nil
	}
	most, err := k.parentMTU(c, l)
	if err != nil {
		return err
	}
	return k.setMTUOf(c, l, mtu, most)
}

func (k *Kernel) setMTUOf(c *conn, l link, mtu, most int) error {
	if mtu = min(mtu, most); mtu == 0 || mtu == l.mtu {
		return nil
	}
	return c.setLink(l.index, false, numberAttr(unix.IFLA_MTU, mtu))
}

// Routed tells whether the child has a route to each of the destinations; a
// default route counts wherever in the namespace it leads.
func (k *Kernel) Routed(ns *NS, child Child, dsts []netip.Prefix) (bool, error) {
	missing := 0
	err := onChild(ns, child, func(c *conn, _ link) error {
		have, err := c.routes()
		for _, dst := range dsts {
			if !slices.ContainsFunc(have, func(r route) bool { return r.dst == dst && (r.index == child.Index || r.isDefault()) }) {
				missing++
			}
		}
		return err
	})
	return missing == 0, err
}
