// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Packet is one captured frame. Which of its parts are set depends on what it is.
type Packet struct {
	Time time.Time
	// Outgoing: sent by the captured interface or a child of it. Otherwise it
	// came in from the wire.
	Outgoing  bool
	SrcMAC    net.HardwareAddr
	DstMAC    net.HardwareAddr
	VLAN      int // 802.1Q id, 0: none
	EtherType uint16
	SrcIP     netip.Addr
	DstIP     netip.Addr
	Protocol  uint8 // of IP
	SrcPort   uint16
	DstPort   uint16
	DHCP      *dhcpv4.DHCPv4 // a well-formed one on ports 67 and 68
	ARP       *ARP
	Raw       []byte // the frame without its tag
}

// ARP is an Ethernet and IPv4 ARP packet (RFC 826).
type ARP struct {
	Request   bool
	SenderMAC net.HardwareAddr
	SenderIP  netip.Addr
	TargetMAC net.HardwareAddr
	TargetIP  netip.Addr
}

// Probe says whether it asks if TargetIP is in use (RFC 5227, 1.1).
func (a *ARP) Probe() bool {
	return a.Request && a.SenderIP.IsUnspecified() && !a.TargetIP.IsUnspecified()
}

// Announcement says whether it claims SenderIP (RFC 5227, 1.1).
func (a *ARP) Announcement() bool {
	return a.Request && a.SenderIP == a.TargetIP
}

// Type is the DHCP message type, 0 when the packet is no DHCP.
func (p Packet) Type() dhcpv4.MessageType {
	if p.DHCP == nil {
		return 0
	}
	return p.DHCP.MessageType()
}

// Is says whether the packet is a DHCP message of the type, from or to the
// client with the MAC; a nil MAC is any client.
func (p Packet) Is(t dhcpv4.MessageType, client net.HardwareAddr) bool {
	return p.DHCP != nil && p.Type() == t && (client == nil || bytes.Equal(p.DHCP.ClientHWAddr, client))
}

// L2Broadcast says whether the frame is for everybody on the LAN.
func (p Packet) L2Broadcast() bool { return bytes.Equal(p.DstMAC, broadcastMAC) }

// L3Broadcast says whether the IP destination is 255.255.255.255.
func (p Packet) L3Broadcast() bool { return p.DstIP == netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// Unicast says whether neither is a broadcast.
func (p Packet) Unicast() bool { return !p.L2Broadcast() && !p.L3Broadcast() }

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (p Packet) String() string {
	way := "in "
	if p.Outgoing {
		way = "out"
	}
	s := fmt.Sprintf("%s %s %v>%v", p.Time.Format("15:04:05.000000"), way, p.SrcMAC, p.DstMAC)
	if p.VLAN != 0 {
		s += fmt.Sprintf(" vlan %d", p.VLAN)
	}
	switch {
	case p.DHCP != nil:
		d := p.DHCP
		s += fmt.Sprintf(" %v:%d>%v:%d %v xid %x chaddr %v ciaddr %v yiaddr %v", p.SrcIP, p.SrcPort,
			p.DstIP, p.DstPort, p.Type(), d.TransactionID[:], d.ClientHWAddr, d.ClientIPAddr, d.YourIPAddr)
		if ip := d.RequestedIPAddress(); ip != nil {
			s += fmt.Sprintf(" requested %v", ip)
		}
		if ip := d.ServerIdentifier(); ip != nil {
			s += fmt.Sprintf(" server %v", ip)
		}
	case p.ARP != nil && p.ARP.Request:
		s += fmt.Sprintf(" ARP who has %v, tell %v (%v)", p.ARP.TargetIP, p.ARP.SenderIP, p.ARP.SenderMAC)
	case p.ARP != nil:
		s += fmt.Sprintf(" ARP %v is at %v", p.ARP.SenderIP, p.ARP.SenderMAC)
	case p.SrcIP.IsValid():
		s += fmt.Sprintf(" %v>%v protocol %d", p.SrcIP, p.DstIP, p.Protocol)
	default:
		s += fmt.Sprintf(" type %#04x", p.EtherType)
	}
	return s
}

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
)

// decode takes a frame apart. What it does not understand it leaves out.
func decode(frame []byte) Packet {
	p := Packet{Raw: frame}
	if len(frame) < 14 {
		return p
	}
	p.DstMAC, p.SrcMAC = net.HardwareAddr(frame[0:6]), net.HardwareAddr(frame[6:12])
	p.EtherType = binary.BigEndian.Uint16(frame[12:])
	body := frame[14:]
	if p.EtherType == etherVLAN && len(body) >= 4 {
		p.VLAN = int(binary.BigEndian.Uint16(body) & 0xfff)
		p.EtherType = binary.BigEndian.Uint16(body[2:])
		body = body[4:]
	}
	switch p.EtherType {
	case etherARP:
		p.ARP = decodeARP(body)
	case etherIPv4:
		decodeIPv4(&p, body)
	}
	return p
}

func decodeARP(b []byte) *ARP {
	// Ethernet, IPv4, 6-byte and 4-byte addresses.
	if len(b) < 28 || !bytes.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return nil
	}
	return &ARP{
		Request:   binary.BigEndian.Uint16(b[6:]) == 1,
		SenderMAC: net.HardwareAddr(b[8:14]), SenderIP: addrOf(b[14:18]),
		TargetMAC: net.HardwareAddr(b[18:24]), TargetIP: addrOf(b[24:28]),
	}
}

func decodeIPv4(p *Packet, b []byte) {
	const udp = 17
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total < head || total > len(b) {
		return
	}
	p.SrcIP, p.DstIP, p.Protocol = addrOf(b[12:16]), addrOf(b[16:20]), b[9]
	body := b[head:total]
	if p.Protocol != udp || len(body) < 8 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return
	}
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
	dhcp := func(port uint16) bool { return port == dhcpv4.ServerPort || port == dhcpv4.ClientPort }
	if dhcp(p.SrcPort) && dhcp(p.DstPort) {
		if m, err := dhcpv4.FromBytes(body[8:]); err == nil {
			p.DHCP = m
		}
	}
}

// network is a 16-bit number in network byte order.
func network(v uint16) uint16 { return v<<8 | v>>8 }
