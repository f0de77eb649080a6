// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// modes are the kernel's numbers (linux/if_link.h).
var modes = map[Mode]uint32{Private: 1, VEPA: 2, Bridge: 4}

// passthru is the mode of which a parent takes one child and no other.
const passthru = 8

// SetMode changes the mode of the live child.
func (k *Kernel) SetMode(ns *NS, child Child, mode Mode) error {
	number := modes[mode]
	if number == 0 {
		return faultf(ErrInvalid, "mode %q: choose bridge, private or vepa", mode)
	}
	return onChild(ns, child, func(c *conn, l link) error {
		if l.mode == number {
			return nil
		}
		h := nl.NewIfInfomsg(unix.AF_UNSPEC)
		h.Index = int32(l.index)
		if err := c.do(request(unix.RTM_NEWLINK, 0, h, macvlanInfo(number)), nil); err != nil {
			return fmt.Errorf("set %s in namespace %s to mode %s: %w", l.name, ns.id.Path, mode, err)
		}
		return nil
	})
}

// SetAlias marks the child; an empty alias takes the mark away.
func (k *Kernel) SetAlias(ns *NS, child Child, alias string) error {
	return onChild(ns, child, func(c *conn, l link) error {
		if err := c.setLink(l.index, false, aliasAttr(alias)); err != nil {
			return fmt.Errorf("set the alias of %s in namespace %s: %w", l.name, ns.id.Path, err)
		}
		return nil
	})
}

// FindChild looks the child up by its MAC among the macvlan links of the
// namespace, whatever its name and index are by now, and returns it as it is,
// with the namespace's present id. Else the error is ErrGone.
func (k *Kernel) FindChild(ns *NS, child Child) (Child, error) {
	var found link
	parent := 0
	err := inNS(ns, func(c *conn) (err error) {
		if found, err = c.findChild(ns, child); err != nil {
			return err
		}
		atHome, err := k.onHostParent(c, ns, found)
		if atHome {
			parent = found.parent
		}
		return err
	})
	if err != nil {
		return Child{}, err
	}
	id, err := k.namespaceID(ns.FD())
	if err != nil {
		return Child{}, err
	}
	return Child{Name: found.name, Index: found.index, MAC: found.mac, NSID: id, Parent: parent, Mode: modeOf(found.mode)}, nil
}

func (c *conn) findChild(ns *NS, child Child) (link, error) {
	if child.Index > 0 {
		if l, err := c.child(own, child); !errors.Is(err, ErrGone) {
			return l, err
		}
	}
	all, err := c.links(own)
	if err != nil {
		return link{}, err
	}
	for _, l := range all {
		if isChild(l, child.MAC) {
			return l, nil
		}
	}
	return link{}, faultf(ErrGone, "%s (%s) is gone from namespace %s", child.Name, child.MAC, ns.id.Path)
}

// onHostParent tells whether the parent of a link in ns is in the host
// namespace. c is a socket in ns.
func (k *Kernel) onHostParent(c *conn, ns *NS, l link) (bool, error) {
	if l.parentNSID < 0 { // IFLA_LINK_NETNSID is absent: the parent is in ns itself
		return ns.id.Ino == k.host.id.Ino && ns.id.Dev == k.host.id.Dev, nil
	}
	id, err := c.namespaceID(k.host.FD())
	return err == nil && id == l.parentNSID, err
}

// DeleteChild deletes the child when the link with its index is a macvlan with
// its MAC, which another link can have when it returns. One that is gone is no
// error.
func (k *Kernel) DeleteChild(ns *NS, child Child) error {
	err := onChild(ns, child, func(c *conn, l link) error { return k.deleteAhead(ns, c, l.index) })
	return deleted(err, child, "namespace "+ns.id.Path)
}

// DeleteChildNSID is DeleteChild by way of the host, for a child to whose
// namespace no path leads any more. A namespace that is gone is no error.
func (k *Kernel) DeleteChildNSID(child Child) error {
	if child.NSID < 0 {
		return faultf(ErrGone, "delete %s: its namespace has no id", child.Name)
	}
	// Deleting waits for the kernel: not on the socket that all share.
	err := inNS(k.host, func(c *conn) error {
		l, err := c.child(child.NSID, child)
		if err == nil {
			err = c.deleteLink(child.NSID, l.index)
		}
		if errors.Is(err, unix.EINVAL) { // no namespace has this id, or none any more
			return errNoLink
		}
		return err
	})
	return deleted(err, child, fmt.Sprintf("the namespace with id %d", child.NSID))
}

func deleted(err error, child Child, where string) error {
	switch {
	case err == nil, errors.Is(err, ErrGone), errors.Is(err, errNoLink):
		return nil
	}
	return fmt.Errorf("delete %s in %s: %w", child.Name, where, err)
}

// child reads the link that child names; ErrGone when it isn't what it was.
func (c *conn) child(nsid int, child Child) (link, error) {
	l, err := c.linkByIndex(nsid, child.Index)
	if errors.Is(err, errNoLink) || err == nil && !isChild(l, child.MAC) {
		return link{}, faultf(ErrGone, "%s (index %d, %s) is gone from its namespace", child.Name, child.Index, child.MAC)
	}
	return l, err
}

func isChild(l link, mac net.HardwareAddr) bool {
	return l.kind == "macvlan" && bytes.Equal(l.mac, mac)
}

func macvlanInfo(mode uint32) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlan"))
	info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_MACVLAN_MODE, nl.Uint32Attr(mode))
	return info
}

// aliasAttr carries the string without a NUL, as the kernel counts it.
func aliasAttr(alias string) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(alias))
}
