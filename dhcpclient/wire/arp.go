// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"mvdhcp/dhcpclient"
)

// Numbers of an ARP packet for IPv4 on Ethernet (RFC 826).
const (
	arpLen      = 28
	arpEthernet = 1
	arpRequest  = 1
	arpReply    = 2
)

// appendARP appends an Ethernet frame with a broadcast ARP Request. Sender
// address 0 makes it a Probe, the target's own makes it an Announcement
// (RFC 5227, 1.1).
func appendARP(b []byte, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	b = append(b, broadcastMAC...)
	b = append(b, mac...)
	b = binary.BigEndian.AppendUint16(b, etherTypeARP)
	b = binary.BigEndian.AppendUint16(b, arpEthernet)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
	b = append(b, 6, 4, 0, arpRequest)
	s, t := sender.As4(), target.As4()
	b = append(b, mac...)
	b = append(b, s[:]...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, t[:]...)
}

// parseARP reads an Ethernet frame with an ARP packet that is not from own.
func parseARP(frame []byte, own net.HardwareAddr) (dhcpclient.ARPPacket, bool) {
	p, op, ok := arpPacket(frame)
	if !ok || bytes.Equal(p[8:14], own) {
		return dhcpclient.ARPPacket{}, false
	}
	return dhcpclient.ARPPacket{
		Request:   op == arpRequest,
		SenderMAC: bytes.Clone(p[8:14]),
		SenderIP:  netip.AddrFrom4([4]byte(p[14:])),
		TargetIP:  netip.AddrFrom4([4]byte(p[24:])),
	}, true
}

// parseClaim reads the sender of an ARP packet, unless that is a probe's.
func parseClaim(frame []byte) (dhcpclient.Claim, bool) {
	p, _, ok := arpPacket(frame)
	if !ok {
		return dhcpclient.Claim{}, false
	}
	c := dhcpclient.Claim{MAC: [6]byte(p[8:]), Addr: netip.AddrFrom4([4]byte(p[14:])), Direct: frame[0]&1 == 0}
	return c, !c.Addr.IsUnspecified()
}

// arpPacket is the ARP packet for IPv4 on Ethernet in a frame, and its
// operation.
func arpPacket(frame []byte) (p []byte, op uint16, ok bool) {
	if len(frame) < ethernetLen+arpLen || binary.BigEndian.Uint16(frame[12:]) != etherTypeARP {
		return nil, 0, false
	}
	p = frame[ethernetLen:]
	op = binary.BigEndian.Uint16(p[6:])
	return p, op, binary.BigEndian.Uint16(p) == arpEthernet && binary.BigEndian.Uint16(p[2:]) == etherTypeIPv4 &&
		p[4] == 6 && p[5] == 4 && (op == arpRequest || op == arpReply)
}
