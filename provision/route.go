// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// route is an IPv4 route of the main table, as far as Apply compares it. Equal
// routes are equal values.
type route struct {
	index  int
	dst    netip.Prefix
	via    netip.Addr // zero: on the link
	src    netip.Addr
	metric int
	onlink bool
	proto  uint8
	typ    uint8
}

func (r *route) isDefault() bool { return r.dst.Bits() == 0 }

// routes lists the IPv4 routes of the main table.
func (c *conn) routes() ([]route, error) {
	h := &nl.RtMsg{}
	h.Family, h.Table = unix.AF_INET, unix.RT_TABLE_MAIN
	all, err := dump(c, request(unix.RTM_GETROUTE, 0, h), parseRoute)
	if errors.Is(err, unix.ENOENT) { // a namespace's main table is made with its first route
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return all, nil
}

// addRoute adds the route beside any other to the same destination: replacing
// would take whichever comes first, be it another link's.
func (c *conn) addRoute(r route) error {
	h := r.header()
	h.Type, h.Scope = r.typ, unix.RT_SCOPE_UNIVERSE
	if !r.via.IsValid() {
		h.Scope = unix.RT_SCOPE_LINK
	}
	if r.onlink {
		h.Flags = unix.RTNH_F_ONLINK
	}
	err := c.do(request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, h, r.attributes()...), nil)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// deleteRoute deletes exactly this route; one that isn't there is no error.
func (c *conn) deleteRoute(r route) error {
	h := r.header()
	h.Scope = unix.RT_SCOPE_NOWHERE // any
	err := c.do(request(unix.RTM_DELROUTE, 0, h, r.attributes()...), nil)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (r *route) header() *nl.RtMsg {
	h := &nl.RtMsg{}
	h.Family, h.Dst_len, h.Table, h.Protocol = unix.AF_INET, uint8(r.dst.Bits()), unix.RT_TABLE_MAIN, r.proto
	return h
}

func (r *route) attributes() []*nl.RtAttr {
	attrs := []*nl.RtAttr{numberAttr(unix.RTA_OIF, r.index)}
	if r.dst.Bits() > 0 {
		attrs = append(attrs, addrAttr(unix.RTA_DST, r.dst.Addr()))
	}
	if r.via.IsValid() {
		attrs = append(attrs, addrAttr(unix.RTA_GATEWAY, r.via))
	}
	if r.src.IsValid() {
		attrs = append(attrs, addrAttr(unix.RTA_PREFSRC, r.src))
	}
	if r.metric != 0 {
		attrs = append(attrs, numberAttr(unix.RTA_PRIORITY, r.metric))
	}
	return attrs
}

func parseRoute(data []byte) (route, bool) {
	if len(data) < unix.SizeofRtMsg || data[0] != unix.AF_INET {
		return route{}, false
	}
	h := nl.DeserializeRtMsg(data)
	if h.Dst_len > 32 {
		return route{}, false
	}
	r := route{proto: h.Protocol, typ: h.Type, onlink: h.Flags&unix.RTNH_F_ONLINK != 0}
	dst, table := netip.IPv4Unspecified(), int(h.Table)
	for typ, value := range attributes(data[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			dst = ipv4(value)
		case unix.RTA_OIF:
			r.index = number(value)
		case unix.RTA_GATEWAY:
			r.via = ipv4(value)
		case unix.RTA_PREFSRC:
			r.src = ipv4(value)
		case unix.RTA_PRIORITY:
			r.metric = int(unsigned(value))
		case unix.RTA_TABLE:
			table = number(value)
		}
	}
	r.dst = netip.PrefixFrom(dst, int(h.Dst_len))
	// A lookup's answer has no main table when it comes from the cache.
	return r, h.Flags&unix.RTM_F_CLONED != 0 || table == unix.RT_TABLE_MAIN
}
