// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// maxReply is option 57: what fits into one Ethernet frame behind the IP and
// UDP headers. Servers read the option as the length of the message or of the
// IP datagram; this value suits both readings.
const maxReply = 1500 - 20 - 8

// requested is option 55. Option 121 stands before 3 and 33 (RFC 3442).
var requested = []byte{
	dhcpv4.OptionSubnetMask.Code(),
	dhcpv4.OptionClasslessStaticRoute.Code(),
	dhcpv4.OptionRouter.Code(),
	dhcpv4.OptionStaticRoutingTable.Code(),
	dhcpv4.OptionDomainNameServer.Code(),
	dhcpv4.OptionDomainName.Code(),
	dhcpv4.OptionDNSDomainSearchList.Code(),
	dhcpv4.OptionHostName.Code(),
	dhcpv4.OptionInterfaceMTU.Code(),
	dhcpv4.OptionBroadcastAddress.Code(),
	dhcpv4.OptionNTPServers.Code(),
	dhcpv4.OptionIPAddressLeaseTime.Code(),
	dhcpv4.OptionServerIdentifier.Code(),
	dhcpv4.OptionRenewTimeValue.Code(),
	dhcpv4.OptionRebindingTimeValue.Code(),
}

// header is what changes from one message of an exchange to the next.
type header struct {
	xid       dhcpv4.TransactionID
	secs      uint16
	broadcast bool
}

// valid refuses parameters that no message can carry.
func (p *Params) valid() error {
	if len(p.MAC) != 6 {
		return fmt.Errorf("DHCP client: MAC address %q has %d bytes instead of 6", p.MAC, len(p.MAC))
	}
	if n := len(p.ClientID); n == 1 || n > 255 {
		return fmt.Errorf("DHCP client %v: client identifier of %d bytes, want 2 to 255 (RFC 2132, 9.14)", p.MAC, n)
	}
	for name, s := range map[string]string{"hostname": p.Hostname, "vendor class": p.VendorClass, "user class": p.UserClass} {
		if len(s) > 255 {
			return fmt.Errorf("DHCP client %v: %s of %d bytes, at most 255 fit", p.MAC, name, len(s))
		}
	}
	if p.RequireIP && !p.RequestIP.Is4() {
		return errors.New("DHCP client: an address is required but none is requested")
	}
	return nil
}

func (p *Params) discover(h header) *dhcpv4.DHCPv4 {
	m := p.message(dhcpv4.MessageTypeDiscover, h)
	if p.RequestIP.Is4() {
		setAddr(m, dhcpv4.OptionRequestedIPAddress, p.RequestIP)
	}
	p.ask(m)
	return m
}

// requestSelecting takes up an offer (RFC 2131, 4.3.2, SELECTING).
func (p *Params) requestSelecting(h header, addr, server netip.Addr) *dhcpv4.DHCPv4 {
	m := p.requestReboot(h, addr)
	setAddr(m, dhcpv4.OptionServerIdentifier, server)
	return m
}

// requestReboot asks to keep an address (RFC 2131, 4.3.2, INIT-REBOOT).
func (p *Params) requestReboot(h header, addr netip.Addr) *dhcpv4.DHCPv4 {
	m := p.message(dhcpv4.MessageTypeRequest, h)
	setAddr(m, dhcpv4.OptionRequestedIPAddress, addr)
	p.ask(m)
	return m
}

// requestExtend asks for a longer lease (RFC 2131, 4.3.2, RENEWING and
// REBINDING, which differ in where the message goes).
func (p *Params) requestExtend(h header, addr netip.Addr) *dhcpv4.DHCPv4 {
	m := p.message(dhcpv4.MessageTypeRequest, h)
	m.ClientIPAddr = ipOf(addr)
	p.ask(m)
	return m
}

// decline and release carry what RFC 2131, table 5, allows and nothing else.
func (p *Params) decline(h header, addr, server netip.Addr, why string) *dhcpv4.DHCPv4 {
	m := p.message(dhcpv4.MessageTypeDecline, h)
	setAddr(m, dhcpv4.OptionRequestedIPAddress, addr)
	setAddr(m, dhcpv4.OptionServerIdentifier, server)
	setText(m, dhcpv4.OptionMessage, printable(why))
	return m
}

func (p *Params) release(h header, addr, server netip.Addr, why string) *dhcpv4.DHCPv4 {
	m := p.message(dhcpv4.MessageTypeRelease, h)
	m.ClientIPAddr = ipOf(addr)
	setAddr(m, dhcpv4.OptionServerIdentifier, server)
	setText(m, dhcpv4.OptionMessage, printable(why))
	return m
}

// message has what all messages of a client have. The codec pads it to the 300
// bytes that some relays insist on (RFC 951, 3).
func (p *Params) message(t dhcpv4.MessageType, h header) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootRequest,
		HWType:        iana.HWTypeEthernet,
		TransactionID: h.xid,
		NumSeconds:    h.secs,
		ClientIPAddr:  net.IPv4zero,
		YourIPAddr:    net.IPv4zero,
		ServerIPAddr:  net.IPv4zero,
		GatewayIPAddr: net.IPv4zero,
		ClientHWAddr:  p.MAC,
		Options:       dhcpv4.Options{dhcpv4.OptionDHCPMessageType.Code(): {byte(t)}},
	}
	if h.broadcast {
		m.SetBroadcast()
	}
	if len(p.ClientID) > 0 {
		m.Options[dhcpv4.OptionClientIdentifier.Code()] = p.ClientID
	}
	return m
}

// ask adds what DISCOVER and REQUEST say of the client and want to know. The
// user class is the bare text: dnsmasq looks for its text anywhere in the
// option, and Kea, dhcpd and Windows compare the whole of it, so that the length
// bytes of RFC 3004 would make the usual rules of those three miss.
func (p *Params) ask(m *dhcpv4.DHCPv4) {
	m.Options[dhcpv4.OptionParameterRequestList.Code()] = requested
	m.Options[dhcpv4.OptionMaximumDHCPMessageSize.Code()] = []byte{maxReply >> 8, maxReply & 0xff}
	setText(m, dhcpv4.OptionHostName, p.Hostname)
	setText(m, dhcpv4.OptionClassIdentifier, p.VendorClass)
	setText(m, dhcpv4.OptionUserClassInformation, p.UserClass)
}

func setAddr(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, a netip.Addr) {
	m.Options[code.Code()] = ipOf(a)
}

func setText(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, s string) {
	if s != "" {
		m.Options[code.Code()] = []byte(s)
	}
}

// ipOf is a in the codec's four bytes, 0.0.0.0 for what is no IPv4 address.
func ipOf(a netip.Addr) net.IP {
	if !a.Is4() {
		return net.IP{0, 0, 0, 0}
	}
	b := a.As4()
	return b[:]
}
