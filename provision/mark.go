// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Per-interface settings of IPv4 as rtnetlink reads and sets them, without a
// file under /proc: linux/ip.h, linux/if_link.h, linux/netconf.h.
const (
	inetConf        = 1 // IFLA_INET_CONF
	confRPFilter    = 8 // IPV4_DEVCONF_…
	confARPAnnounce = 18
	confARPIgnore   = 19

	netconfIndex    = 1 // NETCONFA_…
	netconfRPFilter = 3
	netconfAll      = -1 // NETCONFA_IFINDEX_ALL
)

// mark gives a new link its alias, and makes several children of a namespace on
// one network work side by side (the kernel's Documentation/networking/
// ip-sysctl.rst). Each speaks ARP for its own address only: arp_ignore 1 and
// arp_announce 2. A strict rp_filter, which drops what comes in by another of
// them than the route back, ARP requests too, becomes a loose one.
func (c *conn) mark(index int, alias string) error {
	var attrs []*nl.RtAttr
	if alias != "" {
		attrs = append(attrs, aliasAttr(alias))
	}
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	conf := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil)
	conf.AddRtAttr(confARPAnnounce, nl.Uint32Attr(2))
	conf.AddRtAttr(confARPIgnore, nl.Uint32Attr(1))
	if max(c.rpFilter(netconfAll), c.rpFilter(index)) == 1 { // the kernel goes by the greater one
		conf.AddRtAttr(confRPFilter, nl.Uint32Attr(2))
	}
	err := c.setLink(index, false, append(attrs, spec)...)
	if (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) && alias != "" {
		err = c.setLink(index, false, attrs...) // without what this kernel can't set
	}
	return err
}

// rpFilter is rp_filter of a link or of all; 0 where the kernel does not say.
func (c *conn) rpFilter(index int) (mode int) {
	_ = c.do(request(unix.RTM_GETNETCONF, 0, netconfMsg{}, numberAttr(netconfIndex, index)), func(data []byte) {
		for typ, v := range attributes(data[min(netconfMsg{}.Len(), len(data)):]) {
			if typ == netconfRPFilter {
				mode = number(v)
			}
		}
	})
	return mode
}

// netconfMsg is struct netconfmsg (linux/netconf.h) for IPv4, as a request's
// header.
type netconfMsg struct{}

func (netconfMsg) Len() int { return 4 }

func (netconfMsg) Serialize() []byte { return []byte{unix.AF_INET, 0, 0, 0} }
