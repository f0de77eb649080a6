// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forever is the lifetime of an address that does not expire.
const Forever = time.Duration(0xffffffff) * time.Second

// Addr is an IPv4 address as the kernel has it.
type Addr struct {
	Prefix         netip.Prefix
	Valid          time.Duration // valid_lft
	Preferred      time.Duration // preferred_lft
	Broadcast      netip.Addr
	Secondary      bool
	NoPrefixRoutes bool
}

// Route is an IPv4 route of the main table. The default route's Dst is 0.0.0.0/0.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr // zero: on the link
	Dev    string
	Src    netip.Addr
	Metric int
	Proto  int
}

func (r Route) String() string {
	s := r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	s += " dev " + r.Dev
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// Link is a network interface.
type Link struct {
	Name    string
	Index   int
	Type    string // "veth", "macvlan", …
	MAC     net.HardwareAddr
	MTU     int
	Up      bool // IFF_UP
	Carrier bool // IFF_LOWER_UP
	Parent  int  // index, in the parent's namespace
	Mode    string
	Alias   string
	// Promisc counts who wants all frames.
	Promisc int
}

// Links are all interfaces of the namespace but loopback, by index.
func (n *NS) Links() []Link {
	n.lab.tb.Helper()
	var links []Link
	n.must(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			if a := l.Attrs(); a.Flags&net.FlagLoopback == 0 {
				links = append(links, newLink(l))
			}
		}
		return err
	}, "list links")
	slices.SortFunc(links, func(a, b Link) int { return a.Index - b.Index })
	return links
}

// Link is one interface of the namespace; false when there is none of the name.
func (n *NS) Link(name string) (Link, bool) {
	n.lab.tb.Helper()
	links := n.Links()
	if i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name }); i >= 0 {
		return links[i], true
	}
	return Link{}, false
}

func newLink(l netlink.Link) Link {
	a := l.Attrs()
	link := Link{
		Name: a.Name, Index: a.Index, Type: l.Type(), MAC: a.HardwareAddr, MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Parent: a.ParentIndex, Alias: a.Alias, Promisc: a.Promisc,
	}
	if m, ok := l.(*netlink.Macvlan); ok {
		link.Mode = map[netlink.MacvlanMode]string{
			netlink.MACVLAN_MODE_BRIDGE:  "bridge",
			netlink.MACVLAN_MODE_PRIVATE: "private",
			netlink.MACVLAN_MODE_VEPA:    "vepa",
		}[m.Mode]
	}
	return link
}

// Addrs are the IPv4 addresses of a link; none when there is no such link.
func (n *NS) Addrs(ifname string) []Addr {
	n.lab.tb.Helper()
	var addrs []Addr
	n.must(func() error {
		link, err := netlink.LinkByName(ifname)
		if _, none := err.(netlink.LinkNotFoundError); none {
			return nil
		} else if err != nil {
			return err
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_V4)
		for _, a := range list {
			addrs = append(addrs, newAddr(a))
		}
		return err
	}, "list addresses of %s", ifname)
	return addrs
}

// Addr is a link's only address, and the zero Addr when it has none or several.
func (n *NS) Addr(ifname string) Addr {
	n.lab.tb.Helper()
	if addrs := n.Addrs(ifname); len(addrs) == 1 {
		return addrs[0]
	}
	return Addr{}
}

func newAddr(a netlink.Addr) Addr {
	return Addr{
		Prefix:         prefixOf(a.IPNet),
		Valid:          lifetime(a.ValidLft),
		Preferred:      lifetime(a.PreferedLft),
		Broadcast:      addrOf(a.Broadcast),
		Secondary:      a.Flags&unix.IFA_F_SECONDARY != 0,
		NoPrefixRoutes: a.Flags&unix.IFA_F_NOPREFIXROUTE != 0,
	}
}

func lifetime(seconds int) time.Duration {
	if uint32(seconds) == 0xffffffff {
		return Forever
	}
	return time.Duration(uint32(seconds)) * time.Second
}

// Routes are the IPv4 routes of the main table, by destination and metric.
func (n *NS) Routes() []Route {
	n.lab.tb.Helper()
	var routes []Route
	n.must(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
		}
		list, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		for _, r := range list {
			routes = append(routes, Route{
				Dst: prefixOf(r.Dst), Via: addrOf(r.Gw), Dev: names[r.LinkIndex],
				Src: addrOf(r.Src), Metric: r.Priority, Proto: int(r.Protocol),
			})
		}
		return err
	}, "list routes")
	slices.SortFunc(routes, func(a, b Route) int {
		if c := a.Dst.Addr().Compare(b.Dst.Addr()); c != 0 {
			return c
		}
		if c := a.Dst.Bits() - b.Dst.Bits(); c != 0 {
			return c
		}
		return a.Metric - b.Metric
	})
	return routes
}

// DefaultRoute is the gateway of the default route with the lowest metric.
func (n *NS) DefaultRoute() netip.Addr {
	n.lab.tb.Helper()
	for _, r := range n.Routes() {
		if r.Dst.Bits() == 0 {
			return r.Via
		}
	}
	return netip.Addr{}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
