// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// link is what rtnetlink says of a link, as far as this package asks.
type link struct {
	family uint8
	typ    uint16 // ARPHRD_*
	index  int
	flags  uint32
	name   string
	alias  string
	mac    net.HardwareAddr
	mtu    int
	master int
	parent int // IFLA_LINK
	// parentNSID is the namespace of parent, as seen from the link's; -1: its own.
	parentNSID int
	kind       string
	slaveKind  string
	vlan       int
	vlanProto  uint16 // network byte order undone
	mode       uint32 // IFLA_MACVLAN_MODE
}

func (l *link) up() bool      { return l.flags&unix.IFF_UP != 0 }
func (l *link) carrier() bool { return l.flags&unix.IFF_LOWER_UP != 0 }

// errNoLink: no link has this index or name.
var errNoLink = errors.New("no such link")

// skipStats leaves counters out of the answer (RTEXT_FILTER_SKIP_STATS,
// linux/rtnetlink.h).
const skipStats = 1 << 3

// own stands for the socket's own namespace where a namespace id is asked for.
const own = -1

// linkByIndex reads one link of the namespace with this id.
func (c *conn) linkByIndex(nsid, index int) (link, error) {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index = int32(index)
	return c.oneLink(nsid, request(unix.RTM_GETLINK, 0, h))
}

func (c *conn) linkByName(nsid int, name string) (link, error) {
	return c.oneLink(nsid, request(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), stringAttr(unix.IFLA_IFNAME, name)))
}

func (c *conn) oneLink(nsid int, req *nl.NetlinkRequest) (l link, err error) {
	req.AddData(numberAttr(unix.IFLA_EXT_MASK, skipStats))
	if nsid != own {
		req.AddData(numberAttr(unix.IFLA_TARGET_NETNSID, nsid))
	}
	err = c.do(req, func(data []byte) { l, _ = parseLink(data) })
	if errors.Is(err, unix.ENODEV) {
		return l, errNoLink
	}
	if err != nil {
		return l, fmt.Errorf("read a link: %w", err)
	}
	return l, nil
}

// links reads all links of the namespace with this id.
func (c *conn) links(nsid int) ([]link, error) {
	req := request(unix.RTM_GETLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), numberAttr(unix.IFLA_EXT_MASK, skipStats))
	if nsid != own {
		req.AddData(numberAttr(unix.IFLA_TARGET_NETNSID, nsid))
	}
	all, err := dump(c, req, parseLink)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return all, nil
}

// setLink changes the link with this index: its flags, and what attrs say.
func (c *conn) setLink(index int, up bool, attrs ...*nl.RtAttr) error {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index = int32(index)
	if up {
		h.Flags, h.Change = unix.IFF_UP, unix.IFF_UP
	}
	return c.do(request(unix.RTM_SETLINK, 0, h, attrs...), nil)
}

// deleteLink deletes by index; a link that isn't there is errNoLink.
func (c *conn) deleteLink(nsid, index int) error {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Index = int32(index)
	req := request(unix.RTM_DELLINK, 0, h)
	if nsid != own {
		req.AddData(numberAttr(unix.IFLA_TARGET_NETNSID, nsid))
	}
	err := c.do(req, nil)
	if errors.Is(err, unix.ENODEV) {
		return errNoLink
	}
	return err
}

func parseLink(data []byte) (link, bool) {
	if len(data) < unix.SizeofIfInfomsg {
		return link{}, false
	}
	h := nl.DeserializeIfInfomsg(data)
	l := link{family: h.Family, typ: h.Type, index: int(h.Index), flags: h.Flags, parentNSID: -1}
	for typ, value := range attributes(data[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = text(value)
		case unix.IFLA_IFALIAS:
			l.alias = text(value)
		case unix.IFLA_ADDRESS:
			l.mac = slices.Clone(value)
		case unix.IFLA_MTU:
			l.mtu = number(value)
		case unix.IFLA_MASTER:
			l.master = number(value)
		case unix.IFLA_LINK:
			l.parent = number(value)
		case unix.IFLA_LINK_NETNSID:
			l.parentNSID = number(value)
		case unix.IFLA_LINKINFO:
			l.parseInfo(value)
		}
	}
	return l, true
}

func (l *link) parseInfo(b []byte) {
	var data []byte
	for typ, value := range attributes(b) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.kind = text(value)
		case unix.IFLA_INFO_SLAVE_KIND:
			l.slaveKind = text(value)
		case unix.IFLA_INFO_DATA:
			data = value
		}
	}
	for typ, value := range attributes(data) {
		switch {
		case l.kind == "vlan" && typ == unix.IFLA_VLAN_ID:
			l.vlan = number(value)
		case l.kind == "vlan" && typ == unix.IFLA_VLAN_PROTOCOL && len(value) == 2:
			l.vlanProto = uint16(value[0])<<8 | uint16(value[1])
		case l.kind == "macvlan" && typ == unix.IFLA_MACVLAN_MODE:
			l.mode = unsigned(value)
		}
	}
}
