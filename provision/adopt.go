// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// LinksUp lists the macvlan links of the namespace that are up, whoever made
// them. NSID is not read.
func (k *Kernel) LinksUp(ns *NS) ([]Child, error) {
	var found []Child
	err := inNS(ns, func(c *conn) error {
		all, err := c.links(own)
		for _, l := range all {
			if l.kind == "macvlan" && l.up() {
				found = append(found, Child{Name: l.name, Index: l.index, MAC: l.mac, NSID: -1})
			}
		}
		return err
	})
	return found, err
}

// TakeDefault makes the child's default route through via, when somebody else
// put it there, one of ours, which later calls of Apply keep, change and
// restore. There is always one of the two. It reports whether the child has
// such a route; without one nothing is changed.
func (k *Kernel) TakeDefault(ns *NS, child Child, via, source netip.Addr) (taken bool, err error) {
	err = onChild(ns, child, func(c *conn, l link) error {
		have, err := c.routes()
		if err != nil {
			return err
		}
		for _, r := range have {
			if r.index != l.index || !r.isDefault() || r.via != via || r.typ != unix.RTN_UNICAST {
				continue
			}
			taken = true
			if r.proto == unix.RTPROT_DHCP {
				continue
			}
			mine := r
			mine.proto, mine.src = unix.RTPROT_DHCP, source
			if err := c.addRoute(mine); err != nil {
				return fmt.Errorf("add the default route via %s: %w", via, err)
			}
			if err := c.deleteRoute(r); err != nil {
				return fmt.Errorf("delete the former default route via %s: %w", via, err)
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("take over the default route of %s in namespace %s: %w", child.Name, ns.id.Path, err)
	}
	return taken, nil
}
