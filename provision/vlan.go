// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vlan is what a name of the form IF.VID stands for.
type vlan struct {
	name  string
	trunk string
	id    int
}

// parseVLAN splits IF.VID at its last dot; ok is false for names of another
// form, and an id outside 1 to 4094 (IEEE 802.1Q, table 9-2) is ErrInvalid.
func parseVLAN(name string) (v vlan, ok bool, err error) {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || dot == len(name)-1 || strings.Trim(name[dot+1:], "0123456789") != "" {
		return vlan{}, false, nil
	}
	id, err := strconv.Atoi(name[dot+1:])
	if err != nil || id < 1 || id > 4094 {
		return vlan{}, false, faultf(ErrInvalid, "parent %s: VLAN id %s: must be between 1 and 4094", name, name[dot+1:])
	}
	return vlan{name: name, trunk: name[:dot], id: id}, true, nil
}

// existingOr returns err, which says what is wrong with the name as IF.VID; a
// link that has such a name all the same is named in it.
func (k *Kernel) existingOr(name string, err error) error {
	if l, linkErr := k.hostLink(name); linkErr == nil {
		return faultf(ErrInvalid, "%v (an interface of that name exists, but is %s)", err, l.describe())
	}
	return err
}

// checkVLAN refuses a link that has the name of a VLAN and is not that VLAN.
func (k *Kernel) checkVLAN(l link, v vlan) error {
	trunk, err := k.hostLink(v.trunk)
	if errors.Is(err, errNoLink) && l.kind != "vlan" {
		return nil // no IF that it could be mistaken for: just a name with a dot
	}
	if err != nil && !errors.Is(err, errNoLink) {
		return err
	}
	if l.kind == "vlan" && l.vlan == v.id && (err != nil || l.parent == trunk.index && l.parentNSID < 0) {
		return k.bringUp(trunk)
	}
	is := l.describe()
	if p, err := k.hostIndex(l.parent); err == nil && l.parent != 0 && l.parentNSID < 0 {
		is += " on " + p.name
	}
	return faultf(ErrInvalid, "parent %s: exists, but is %s, not VLAN %d on %s; rename it, or name another parent", v.name, is, v.id, v.trunk)
}

// makeVLAN makes the link with its trunk up, or finds the one that exists for
// this trunk and id.
func (k *Kernel) makeVLAN(v vlan) (l link, made bool, err error) {
	trunk, err := k.hostLink(v.trunk)
	if errors.Is(err, errNoLink) {
		return l, false, faultf(ErrGone, "parent %s: there is no interface %s to make VLAN %d on", v.name, v.trunk, v.id)
	}
	if err != nil {
		return l, false, err
	}
	if err := k.checkTrunk(trunk); err != nil {
		return l, false, err
	}
	err = k.onHost(func(c *conn) error { return c.createVLAN(trunk.index, v) })
	switch {
	case errors.Is(err, unix.EEXIST):
		l, err = k.findVLAN(trunk, v)
		return l, false, err
	case errors.Is(err, unix.EOPNOTSUPP):
		return l, false, faultf(ErrUnsupported, "parent %s: this kernel has no 802.1Q: load the module (modprobe 8021q), or use a kernel that has it", v.name)
	case err != nil:
		return l, false, fmt.Errorf("make VLAN %s on %s: %w", v.name, v.trunk, err)
	}
	if l, err = k.hostLink(v.name); err == nil {
		err = k.onHost(func(c *conn) error { return c.setLink(l.index, false, aliasAttr(ParentAlias)) })
		l.alias = ParentAlias
	}
	if err != nil {
		_ = k.onHost(func(c *conn) error { return c.deleteLink(own, l.index) })
		return l, false, fmt.Errorf("mark VLAN %s: %w", v.name, err)
	}
	return l, true, nil
}

// checkTrunk refuses what no VLAN can work on, and brings the rest up.
func (k *Kernel) checkTrunk(trunk link) error {
	// A bridge port's tagged frames go to its VLAN links before the bridge sees
	// them (net/core/dev.c, __netif_receive_skb_core).
	check := trunk
	if check.slaveKind == "bridge" {
		check.slaveKind = ""
	}
	if err := k.checkParent(check); err != nil {
		return err
	}
	return k.bringUp(trunk)
}

func (k *Kernel) bringUp(l link) error {
	if l.index == 0 || l.up() {
		return nil
	}
	if err := k.onHost(func(c *conn) error { return c.setLink(l.index, true) }); err != nil {
		return fmt.Errorf("bring %s up: %w", l.name, err)
	}
	return nil
}

func (c *conn) createVLAN(trunk int, v vlan) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("vlan"))
	data := info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_VLAN_ID, nl.Uint16Attr(uint16(v.id)))
	data.AddRtAttr(unix.IFLA_VLAN_PROTOCOL, nl.BEUint16Attr(unix.ETH_P_8021Q))
	return c.do(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC),
		stringAttr(unix.IFLA_IFNAME, v.name), numberAttr(unix.IFLA_LINK, trunk), info), nil)
}

// findVLAN finds the 802.1Q link for this trunk and id by another name.
func (k *Kernel) findVLAN(trunk link, v vlan) (link, error) {
	var all []link
	err := k.onHost(func(c *conn) (err error) {
		all, err = c.links(own)
		return err
	})
	if err != nil {
		return link{}, err
	}
	for _, l := range all {
		if l.kind == "vlan" && l.vlan == v.id && l.vlanProto == unix.ETH_P_8021Q && l.parent == trunk.index && l.parentNSID < 0 {
			return l, nil
		}
	}
	return link{}, faultf(ErrBusy, "parent %s: VLAN %d on %s is in use by a link in another namespace", v.name, v.id, v.trunk)
}

// describe says what kind of link this is.
func (l *link) describe() string {
	switch l.kind {
	case "":
		return "a plain interface"
	case "vlan":
		return fmt.Sprintf("a link for VLAN %d", l.vlan)
	}
	return "a " + l.kind + " link"
}
