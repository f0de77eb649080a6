// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FoundChild is a child as the kernel has it.
type FoundChild struct {
	Child
	Alias     string
	Addresses []FoundAddress
}

// FoundAddress is an IPv4 address on a child.
type FoundAddress struct {
	Prefix   netip.Prefix
	Lifetime time.Duration // what is left; Forever: no end
	// Ours is set when Apply put it there.
	Ours bool
}

// Children lists the macvlan links of the namespace whose alias starts with
// prefix and whose parent is in the host namespace. With it, what was attached
// can be found again when nothing else is known.
func (k *Kernel) Children(ns *NS, prefix string) ([]FoundChild, error) {
	var children []FoundChild
	err := inNS(ns, func(c *conn) error {
		all, err := c.links(own)
		if err != nil {
			return err
		}
		// IFLA_LINK_NETNSID is absent when the parent is in the same namespace.
		hostID := -1
		if ns.id.Ino != k.host.id.Ino || ns.id.Dev != k.host.id.Dev {
			if hostID, err = c.namespaceID(k.host.FD()); err != nil || hostID < 0 {
				return err
			}
		}
		for _, l := range all {
			if l.kind != "macvlan" || !strings.HasPrefix(l.alias, prefix) || l.parentNSID != hostID {
				continue
			}
			f := FoundChild{
				Child: Child{Name: l.name, Index: l.index, MAC: l.mac, NSID: -1, Parent: l.parent, Mode: modeOf(l.mode)},
				Alias: l.alias,
			}
			if f.Addresses, err = k.foundAddresses(c, l.index); err != nil {
				return err
			}
			children = append(children, f)
		}
		return nil
	})
	if err != nil || len(children) == 0 {
		return nil, err
	}
	id, err := k.namespaceID(ns.FD())
	if err != nil {
		return nil, err
	}
	for i := range children {
		children[i].NSID = id
	}
	return children, nil
}

func (k *Kernel) foundAddresses(c *conn, index int) ([]FoundAddress, error) {
	all, err := c.addresses(index)
	var found []FoundAddress
	for _, a := range all {
		found = append(found, FoundAddress{
			Prefix:   a.prefix,
			Lifetime: time.Duration(a.valid) * time.Second,
			Ours:     k.owns(a),
		})
	}
	return found, err
}

func modeOf(number uint32) Mode {
	for mode, n := range modes {
		if n == number {
			return mode
		}
	}
	return ""
}

// infinite is the kernel's INFINITY_LIFE_TIME (linux/if_addr.h users).
const infinite = uint32(Forever / time.Second)

// owns tells whether Apply put the address there. The mark is IFA_PROTO; a
// kernel that has none knows Apply's addresses by their end, which addresses
// set by hand don't have.
func (k *Kernel) owns(a address) bool {
	if a.proto == addressProto {
		return true
	}
	return !k.addressOwner && a.proto == 0 && a.valid != infinite && a.flags&unix.IFA_F_PERMANENT == 0
}
