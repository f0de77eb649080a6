// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addressProto marks our addresses (IFA_PROTO, linux/if_addr.h): a number of
// our own, above those the kernel uses (1 to 3).
const addressProto = 109

const ifaProto = 11 // IFA_PROTO

// address is an IPv4 address on a link, as far as it must be told apart or put
// back.
type address struct {
	index            int
	prefix           netip.Prefix // local address and length
	peer             netip.Addr   // IFA_ADDRESS, the local one but on point-to-point links
	broadcast        netip.Addr
	label            string
	scope            uint8
	flags            uint32
	valid, preferred uint32 // seconds
	proto            uint8
	metric           int // of the prefix route
}

// addresses lists the IPv4 addresses of one link, or of all for index 0.
func (c *conn) addresses(index int) ([]address, error) {
	h := nl.NewIfAddrmsg(unix.AF_INET)
	h.Index = uint32(index)
	all, err := dump(c, request(unix.RTM_GETADDR, 0, h), func(data []byte) (address, bool) {
		a, ok := parseAddress(data)
		return a, ok && (index == 0 || a.index == index)
	})
	if errors.Is(err, unix.ENODEV) { // the link this index had is gone
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}

// leased is the address that cfg describes.
func (k *Kernel) leased(index int, cfg *Config) address {
	a := address{
		index: index, prefix: cfg.Address, peer: cfg.Address.Addr(), broadcast: broadcastOf(cfg.Address),
		valid: seconds(cfg.Lifetime), proto: addressProto, metric: cfg.Metric,
	}
	if a.valid == infinite && !k.addressOwner {
		a.valid-- // the end, 136 years off, is what tells the address is ours
	}
	a.preferred = a.valid
	return a
}

// putAddress adds the address, or gives it these lifetimes and this metric when
// it is there.
func (c *conn) putAddress(a address) error {
	h := nl.NewIfAddrmsg(unix.AF_INET)
	h.Index, h.Prefixlen, h.Scope = uint32(a.index), uint8(a.prefix.Bits()), a.scope
	life := &nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Prefered: a.preferred, Valid: a.valid}}
	attrs := []*nl.RtAttr{
		addrAttr(unix.IFA_LOCAL, a.prefix.Addr()),
		addrAttr(unix.IFA_ADDRESS, a.peer),
		nl.NewRtAttr(unix.IFA_CACHEINFO, life.Serialize()),
	}
	if a.broadcast.IsValid() {
		attrs = append(attrs, addrAttr(unix.IFA_BROADCAST, a.broadcast))
	}
	if a.label != "" {
		attrs = append(attrs, stringAttr(unix.IFA_LABEL, a.label))
	}
	if keep := a.flags & (unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN); keep != 0 {
		attrs = append(attrs, numberAttr(unix.IFA_FLAGS, int(keep)))
	}
	if a.metric != 0 {
		attrs = append(attrs, numberAttr(unix.IFA_RT_PRIORITY, a.metric))
	}
	if a.proto != 0 {
		attrs = append(attrs, nl.NewRtAttr(ifaProto, []byte{a.proto}))
	}
	return c.do(request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h, attrs...), nil)
}

// deleteAddress takes exactly this address off; one that isn't there is no error.
func (c *conn) deleteAddress(a address) error {
	h := nl.NewIfAddrmsg(unix.AF_INET)
	h.Index, h.Prefixlen = uint32(a.index), uint8(a.prefix.Bits())
	err := c.do(request(unix.RTM_DELADDR, 0, h,
		addrAttr(unix.IFA_LOCAL, a.prefix.Addr()), addrAttr(unix.IFA_ADDRESS, a.peer)), nil)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// takeOff deletes the addresses. Where promote_secondaries is off, the kernel
// deletes the secondaries of a primary with it (net/ipv4/devinet.c,
// __inet_del_ifa): those that were to stay are put back.
func (c *conn) takeOff(index int, all, stale []address) error {
	gone := map[netip.Prefix]bool{}
	for _, a := range stale {
		if err := c.deleteAddress(a); err != nil {
			return fmt.Errorf("delete address %s: %w", a.prefix, err)
		}
		gone[a.prefix] = true
	}
	left, err := c.addresses(index)
	if err != nil {
		return err
	}
	for _, a := range left {
		gone[a.prefix] = true
	}
	for _, a := range all {
		if gone[a.prefix] {
			continue
		}
		if err := c.putAddress(a); err != nil {
			return fmt.Errorf("put address %s back: %w", a.prefix, err)
		}
	}
	return nil
}

func parseAddress(data []byte) (address, bool) {
	if len(data) < unix.SizeofIfAddrmsg || data[0] != unix.AF_INET {
		return address{}, false
	}
	h := nl.DeserializeIfAddrmsg(data)
	a := address{index: int(h.Index), scope: h.Scope, flags: uint32(h.Flags), valid: infinite, preferred: infinite}
	var local netip.Addr
	for typ, value := range attributes(data[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local = ipv4(value)
		case unix.IFA_ADDRESS:
			a.peer = ipv4(value)
		case unix.IFA_BROADCAST:
			a.broadcast = ipv4(value)
		case unix.IFA_LABEL:
			a.label = text(value)
		case unix.IFA_FLAGS:
			a.flags = unsigned(value)
		case unix.IFA_RT_PRIORITY:
			a.metric = int(unsigned(value))
		case ifaProto:
			a.proto = uint8(number(value))
		case unix.IFA_CACHEINFO:
			if len(value) >= unix.SizeofIfaCacheinfo {
				a.preferred, a.valid = unsigned(value[:4]), unsigned(value[4:8])
			}
		}
	}
	if !local.IsValid() {
		local = a.peer
	}
	a.prefix = netip.PrefixFrom(local, int(h.Prefixlen))
	return a, a.prefix.IsValid()
}

// seconds is a lifetime for the kernel: whole seconds, at least one.
func seconds(d time.Duration) uint32 {
	if d >= Forever {
		return infinite
	}
	return uint32(max(d/time.Second, 1))
}

// broadcastOf is the prefix's last address; a /31 and a /32 have no broadcast
// (RFC 3021, section 2.1).
func broadcastOf(p netip.Prefix) netip.Addr {
	if p.Bits() >= 31 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}
