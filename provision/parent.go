// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ParentAlias marks the VLAN links that EnsureParent makes.
const ParentAlias = "mvdhcp"

// Parent reads a link of the host namespace. ErrGone: there is none.
func (k *Kernel) Parent(name string) (Parent, error) {
	if err := checkName(name); err != nil {
		return Parent{}, err
	}
	l, err := k.hostLink(name)
	if errors.Is(err, errNoLink) {
		return Parent{}, faultf(ErrGone, "parent %s: there is no such interface", name)
	}
	return parentOf(l), err
}

// ParentAt reads the link of the host namespace with this index, whatever its
// name is by now. ErrGone: there is none.
func (k *Kernel) ParentAt(index int) (Parent, error) {
	l, err := k.hostIndex(index)
	if errors.Is(err, errNoLink) {
		return Parent{}, faultf(ErrGone, "there is no interface with index %d", index)
	}
	return parentOf(l), err
}

// EnsureParent returns the parent, checked to be one that children can hang on,
// and up. IF.VID that doesn't exist is made as an 802.1Q link on IF, or, when IF
// has a link for that id under another name, that one is returned; made tells
// whether a link was made. An interface that can never be a parent is
// ErrInvalid, one that doesn't exist ErrGone, a kernel without 802.1Q
// ErrUnsupported.
func (k *Kernel) EnsureParent(name string) (p Parent, made bool, err error) {
	if err := checkName(name); err != nil {
		return Parent{}, false, err
	}
	v, isVLAN, err := parseVLAN(name)
	if err != nil {
		return Parent{}, false, k.existingOr(name, err)
	}
	l, err := k.hostLink(name)
	switch {
	case errors.Is(err, errNoLink) && isVLAN:
		l, made, err = k.makeVLAN(v)
	case errors.Is(err, errNoLink):
		return Parent{}, false, faultf(ErrGone, "parent %s: there is no such interface; see `ip link` for those there are", name)
	case err == nil && isVLAN:
		err = k.checkVLAN(l, v)
	}
	if err != nil {
		return Parent{}, false, err
	}
	if l, err = k.readyParent(l); err != nil {
		if made {
			_ = k.RemoveParent(l.name)
		}
		return Parent{}, false, err
	}
	return parentOf(l), made, nil
}

// RemoveParent deletes the link when EnsureParent made it. When macvlan
// children hang on it, wherever they are, the error is ErrBusy and it stays. A
// link that isn't there, or isn't ours, is left alone without an error.
func (k *Kernel) RemoveParent(name string) error {
	l, err := k.hostLink(name)
	if errors.Is(err, errNoLink) || err == nil && l.alias != ParentAlias {
		return nil
	}
	if err != nil {
		return err
	}
	// Deleting waits for the kernel: not on the socket that all share.
	return inNS(k.host, func(c *conn) error {
		if err := c.claim(l.index); err != nil {
			return err
		}
		if err := c.deleteLink(own, l.index); err != nil && !errors.Is(err, errNoLink) {
			return fmt.Errorf("delete %s: %w", name, err)
		}
		return nil
	})
}

// claim hangs a link of mode passthru on the parent, which the kernel allows
// only where no other macvlan is, in any namespace, and which then rules out new
// ones (drivers/net/macvlan.c, macvlan_common_newlink). It is deleted together
// with the parent.
func (c *conn) claim(parent int) error {
	err := c.do(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC),
		stringAttr(unix.IFLA_IFNAME, fmt.Sprintf("mvclaim%d", parent)),
		numberAttr(unix.IFLA_LINK, parent),
		macvlanInfo(passthru),
	), nil)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP): // no such link, no macvlan at all
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return faultf(ErrBusy, "link with index %d still has children", parent)
	case err != nil:
		return fmt.Errorf("check link with index %d for children: %w", parent, err)
	}
	return nil
}

// readyParent checks the link and brings it up.
func (k *Kernel) readyParent(l link) (link, error) {
	if err := k.checkParent(l); err != nil {
		return l, err
	}
	if l.up() {
		return l, nil
	}
	err := k.onHost(func(c *conn) (err error) {
		if err = c.setLink(l.index, true); err == nil {
			l, err = c.linkByIndex(own, l.index)
		}
		return err
	})
	if errors.Is(err, errNoLink) || errors.Is(err, unix.ENODEV) {
		return l, faultf(ErrGone, "parent %s is gone", l.name)
	}
	if err != nil {
		return l, fmt.Errorf("bring parent %s up: %w", l.name, err)
	}
	return l, nil
}

// checkParent refuses what can't carry children, and says what to do instead.
func (k *Kernel) checkParent(l link) error {
	master := "its master"
	if l.master != 0 {
		if m, err := k.hostIndex(l.master); err == nil {
			master = m.name
		}
	}
	switch {
	case l.flags&unix.IFF_LOOPBACK != 0:
		return faultf(ErrInvalid, "parent %s: is the loopback interface, which leads to no network; name the network card, or one of its VLANs", l.name)
	case l.slaveKind == "bridge" || l.slaveKind == "openvswitch":
		return faultf(ErrInvalid, "parent %s: is a port of bridge %s, which takes all its frames; name %s as parent", l.name, master, master)
	case l.master != 0 && l.slaveKind != "vrf" && l.slaveKind != "":
		return faultf(ErrInvalid, "parent %s: is a member of %s %s, which takes all its frames; name %s as parent", l.name, l.slaveKind, master, master)
	case l.kind == "macvlan" || l.kind == "ipvlan" || l.kind == "macvtap" || l.kind == "ipvtap":
		lower := "the interface it is on"
		if p, err := k.hostIndex(l.parent); err == nil && l.parentNSID < 0 {
			lower = p.name
		}
		return faultf(ErrInvalid, "parent %s: is itself a %s, and children can't be stacked; name %s as parent", l.name, l.kind, lower)
	case k.isWireless(l.name):
		return faultf(ErrInvalid, "parent %s: is wireless, and an access point accepts frames from one MAC address only, so children with their own get no answer; use a wired interface", l.name)
	case l.typ != unix.ARPHRD_ETHER:
		return faultf(ErrInvalid, "parent %s: is no Ethernet interface, and only those can carry macvlan children", l.name)
	}
	return nil
}

// isWireless looks for what cfg80211 and wext put into sysfs.
func (k *Kernel) isWireless(name string) bool {
	if k.sysfs == "" {
		return false
	}
	for _, mark := range []string{"phy80211", "wireless"} {
		if _, err := os.Lstat(filepath.Join(k.sysfs, "class/net", name, mark)); err == nil {
			return true
		}
	}
	return false
}

func (k *Kernel) hostLink(name string) (l link, err error) {
	err = k.onHost(func(c *conn) error {
		l, err = c.linkByName(own, name)
		return err
	})
	return l, err
}

func (k *Kernel) hostIndex(index int) (l link, err error) {
	err = k.onHost(func(c *conn) error {
		l, err = c.linkByIndex(own, index)
		return err
	})
	return l, err
}

func parentOf(l link) Parent {
	return Parent{
		Name: l.name, Index: l.index, MAC: l.mac, MTU: l.mtu,
		Up: l.up(), Carrier: l.carrier(), Ours: l.alias == ParentAlias,
	}
}
