// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"fmt"
	"net"
)

// holderOf describes the link on this parent that has the MAC: the parent
// itself, or a macvlan in a namespace that is alive; "" when none is found. It
// looks at every namespace, so it is only asked once a MAC is known to be taken.
func (k *Kernel) holderOf(mac net.HardwareAddr, parent int) string {
	var holder string
	_ = inNS(k.host, func(c *conn) error {
		if l, err := c.linkByIndex(own, parent); err == nil && bytes.Equal(l.mac, mac) {
			holder = l.name + " itself"
			return nil
		}
		if l, ok := c.withMAC(own, mac); ok && l.parent == parent {
			holder = l.name + " on the host"
			return nil
		}
		ids, _ := c.namespaceIDs()
		for _, id := range ids {
			if l, ok := c.withMAC(id, mac); ok {
				holder = fmt.Sprintf("%s in %s", l.name, k.pathOf(c, id))
				return nil
			}
		}
		return nil
	})
	if holder != "" {
		return holder
	}
	all, _ := AllNamespaces()
	for _, n := range all {
		if l, ok := inNamespace(n, mac); ok {
			return fmt.Sprintf("%s in namespace %s", l.name, n.Path)
		}
	}
	return ""
}

// withMAC finds a macvlan by MAC in the namespace with this id.
func (c *conn) withMAC(nsid int, mac net.HardwareAddr) (link, bool) {
	all, _ := c.links(nsid)
	for _, l := range all {
		if isChild(l, mac) {
			return l, true
		}
	}
	return link{}, false
}

func inNamespace(n Namespace, mac net.HardwareAddr) (l link, ok bool) {
	ns, err := n.Open()
	if err != nil {
		return l, false
	}
	defer ns.Close()
	_ = inNS(ns, func(c *conn) error {
		l, ok = c.withMAC(own, mac)
		return nil
	})
	return l, ok
}

// pathOf words the namespace with this id, by its path when it has one.
func (k *Kernel) pathOf(c *conn, id int) string {
	all, _ := AllNamespaces()
	for _, n := range all {
		ns, err := n.Open()
		if err != nil {
			continue
		}
		got, err := c.namespaceID(ns.FD())
		ns.Close()
		if err == nil && got == id {
			return "namespace " + n.Path
		}
	}
	return fmt.Sprintf("a namespace without a name (id %d)", id)
}
