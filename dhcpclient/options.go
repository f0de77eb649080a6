// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Bounds on what one reply can make a record grow to.
const (
	maxServers = 16 // DNS, and NTP
	maxRoutes  = 64
)

// minMTU is the least that every IPv4 host must take (RFC 2132, 5.1 allows 68,
// which no server means).
const minMTU = 576

// newBinding reads an OFFER or ACK. It refuses one without a usable address,
// server identifier or lease time, and leaves out single options that make no
// sense.
func newBinding(m *dhcpv4.DHCPv4) (Binding, error) {
	server, ok := serverID(m)
	if !ok {
		return Binding{}, errors.New("no usable server identifier")
	}
	addr, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !unicast(addr) {
		return Binding{}, fmt.Errorf("%v is no address for a host", addr)
	}
	prefix := netip.PrefixFrom(addr, maskBits(m.Options.Get(dhcpv4.OptionSubnetMask), addr))
	if !hostIn(prefix) {
		return Binding{}, fmt.Errorf("%v is the network or broadcast address of its subnet", prefix)
	}
	lease, t1, t2, err := leaseTimes(m.Options)
	if err != nil {
		return Binding{}, err
	}
	b := Binding{
		Address:  prefix,
		Server:   server,
		DNS:      servers(m.Options.Get(dhcpv4.OptionDomainNameServer)),
		Domain:   domainName(m.Options.Get(dhcpv4.OptionDomainName)),
		Search:   searchList(m.Options.Get(dhcpv4.OptionDNSDomainSearchList)),
		NTP:      servers(m.Options.Get(dhcpv4.OptionNTPServers)),
		MTU:      mtu(m.Options.Get(dhcpv4.OptionInterfaceMTU)),
		Lease:    lease,
		T1:       t1,
		T2:       t2,
		Hostname: domainName(m.Options.Get(dhcpv4.OptionHostName)),
	}
	b.Router, b.Routes = routes(m.Options, prefix)
	return b, nil
}

// serverID is option 54 when it is an address that a server can have.
func serverID(m *dhcpv4.DHCPv4) (netip.Addr, bool) {
	v := m.Options.Get(dhcpv4.OptionServerIdentifier)
	if len(v) != 4 {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom4([4]byte(v))
	return a, unicast(a)
}

// unicast reports whether one host can have a: not in 0.0.0.0/8, 127.0.0.0/8,
// 224.0.0.0/4 or 240.0.0.0/4.
func unicast(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	first := a.As4()[0]
	return first != 0 && first != 127 && first < 224
}

// maskBits is the prefix length of mask. The mask of addr's class stands in for
// one that is absent, not contiguous, or shorter than 8 bits.
func maskBits(mask []byte, addr netip.Addr) int {
	if len(mask) == 4 {
		v := binary.BigEndian.Uint32(mask)
		n := bits.LeadingZeros32(^v)
		if n >= 8 && bits.OnesCount32(v) == n {
			return n
		}
	}
	return classBits(addr)
}

func classBits(a netip.Addr) int {
	switch first := a.As4()[0]; {
	case first < 128:
		return 8
	case first < 192:
		return 16
	default:
		return 24
	}
}

// hostIn reports whether p's address is neither the first nor the last of its
// subnet. With 31 bits or more there is no such address (RFC 3021).
func hostIn(p netip.Prefix) bool {
	if p.Bits() >= 31 {
		return true
	}
	b := p.Addr().As4()
	host := binary.BigEndian.Uint32(b[:]) << p.Bits() >> p.Bits()
	return host != 0 && host != 1<<(32-p.Bits())-1
}

// servers reads a list of addresses, each once.
func servers(v []byte) []netip.Addr {
	var list []netip.Addr
	for ; len(v) >= 4 && len(list) < maxServers; v = v[4:] {
		if a := netip.AddrFrom4([4]byte(v)); unicast(a) && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

func mtu(v []byte) int {
	if len(v) != 2 {
		return 0
	}
	if n := int(binary.BigEndian.Uint16(v)); n >= minMTU {
		return n
	}
	return 0
}
