// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// answer is what an honest server says, nil for nothing. e.mu is held.
func (e *Embedded) answer(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	mac := req.ClientHWAddr.String()
	asked := addrOf(req.RequestedIPAddress())
	if s := addrOf(req.ServerIdentifier()); s.IsValid() && s != e.Addr {
		return nil
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		if addr := e.choose(mac, asked); addr.IsValid() {
			return e.reply(req, dhcpv4.MessageTypeOffer, addr)
		}
	case dhcpv4.MessageTypeRequest:
		want := asked
		if !want.IsValid() {
			want = addrOf(req.ClientIPAddr)
		}
		if !e.free(mac, want) {
			return e.reply(req, dhcpv4.MessageTypeNak, netip.IPv4Unspecified())
		}
		e.grant(req, mac, want)
		return e.reply(req, dhcpv4.MessageTypeAck, want)
	case dhcpv4.MessageTypeRelease:
		addr := addrOf(req.ClientIPAddr)
		if l := e.leases[addr]; l != nil && l.MAC == mac {
			delete(e.leases, addr)
		}
	case dhcpv4.MessageTypeDecline:
		if l := e.leases[asked]; l == nil || l.MAC == mac {
			delete(e.leases, asked)
			e.bad[asked] = true
		}
	}
	return nil
}

// choose gives a client its reserved, last or wished address, or the first that
// is free.
func (e *Embedded) choose(mac string, asked netip.Addr) netip.Addr {
	if r, ok := e.opts.Reserved[mac]; ok {
		return r
	}
	for addr, l := range e.leases {
		if l.MAC == mac && e.free(mac, addr) {
			return addr
		}
	}
	if e.free(mac, asked) {
		return asked
	}
	for addr := e.opts.First; addr.Compare(e.opts.Last) <= 0; addr = addr.Next() {
		if e.free(mac, addr) {
			return addr
		}
	}
	return netip.Addr{}
}

// free says whether a client may have an address.
func (e *Embedded) free(mac string, addr netip.Addr) bool {
	for m, r := range e.opts.Reserved {
		if r == addr {
			return m == mac
		}
	}
	if !addr.IsValid() || addr.Compare(e.opts.First) < 0 || addr.Compare(e.opts.Last) > 0 || e.bad[addr] {
		return false
	}
	l := e.leases[addr]
	return l == nil || l.MAC == mac || !l.Expiry.IsZero() && time.Now().After(l.Expiry)
}

func (e *Embedded) grant(req *dhcpv4.DHCPv4, mac string, addr netip.Addr) {
	l := &ServerLease{MAC: mac, Addr: addr, Hostname: req.HostName(),
		ClientID: fmt.Sprintf("%x", req.Options.Get(dhcpv4.OptionClientIdentifier))}
	if e.opts.Lease < Forever {
		l.Expiry = time.Now().Add(e.opts.Lease)
	}
	e.leases[addr] = l
}

func (e *Embedded) reply(req *dhcpv4.DHCPv4, t dhcpv4.MessageType, addr netip.Addr) *dhcpv4.DHCPv4 {
	r, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(t),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(e.Addr.AsSlice())))
	if err != nil {
		return nil
	}
	if id := req.Options.Get(dhcpv4.OptionClientIdentifier); id != nil { // RFC 6842
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, bytes.Clone(id)))
	}
	if t == dhcpv4.MessageTypeNak {
		r.UpdateOption(dhcpv4.OptMessage("address not available"))
		return r
	}
	o := e.opts
	r.YourIPAddr = addr.AsSlice()
	if t == dhcpv4.MessageTypeAck {
		r.ClientIPAddr = req.ClientIPAddr
	}
	r.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(o.LAN.Subnet.Bits(), 32)))
	r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(o.Lease))
	if o.T1 > 0 {
		r.UpdateOption(dhcpv4.OptRenewTimeValue(o.T1))
	}
	if o.T2 > 0 {
		r.UpdateOption(dhcpv4.OptRebindingTimeValue(o.T2))
	}
	if !o.NoRouter {
		r.UpdateOption(dhcpv4.OptRouter(o.Router.AsSlice()))
	}
	var dns []net.IP
	for _, a := range o.DNS {
		dns = append(dns, a.AsSlice())
	}
	if len(dns) > 0 {
		r.UpdateOption(dhcpv4.OptDNS(dns...))
	}
	r.UpdateOption(dhcpv4.OptDomainName(o.Domain))
	return r
}
