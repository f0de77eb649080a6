// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	serverPort = 67
	clientPort = 68

	ethernetLen = 14
	ipv4Len     = 20 // without options
	udpLen      = 8

	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	protocolUDP   = 17

	moreFragments  = 0x2000
	fragmentOffset = 0x1fff

	defaultTTL = 64
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// datagram is the UDP payload of one frame and where it came from.
type datagram struct {
	payload []byte // part of the frame
	from    netip.Addr
	fromMAC net.HardwareAddr // a copy; nil when it is no host's address
}

// appendFrame appends an Ethernet frame with payload from port 68 to port 67.
func appendFrame(b []byte, srcMAC, dstMAC net.HardwareAddr, src, dst netip.Addr, payload []byte) []byte {
	b = append(b, dstMAC...)
	b = append(b, srcMAC...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)

	ip := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Len+udpLen+len(payload)))
	b = append(b, 0, 0, 0, 0, defaultTTL, protocolUDP, 0, 0) // id, fragment, ttl, protocol, checksum
	s, d := src.As4(), dst.As4()
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	binary.BigEndian.PutUint16(b[ip+10:], ^fold(sum(0, b[ip:])))

	udp := len(b)
	b = binary.BigEndian.AppendUint16(b, clientPort)
	b = binary.BigEndian.AppendUint16(b, serverPort)
	b = binary.BigEndian.AppendUint16(b, uint16(udpLen+len(payload)))
	b = append(b, 0, 0)
	b = append(b, payload...)
	check := ^fold(sum(pseudoHeader(s, d, udpLen+len(payload)), b[udp:]))
	if check == 0 {
		check = 0xffff // 0 would mean that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[udp+6:], check)
	return b
}

// parseFrame returns the UDP datagram to port 68 that frame holds. It refuses
// fragments, lengths that do not fit into each other (a trailer behind the
// datagram is cut off) and wrong checksums; IP options are stepped over. The UDP
// checksum counts only where the sender sent one and, with partial set, not at
// all: the kernel had not filled it in yet.
func parseFrame(frame []byte, partial bool) (datagram, bool) {
	if len(frame) < ethernetLen+ipv4Len+udpLen || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv4 {
		return datagram{}, false
	}
	ip := frame[ethernetLen:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4 || header < ipv4Len || total < header+udpLen || total > len(ip):
		return datagram{}, false
	case ip[9] != protocolUDP || binary.BigEndian.Uint16(ip[6:])&(moreFragments|fragmentOffset) != 0:
		return datagram{}, false
	case fold(sum(0, ip[:header])) != 0xffff:
		return datagram{}, false
	}
	src, dst := [4]byte(ip[12:]), [4]byte(ip[16:])
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != clientPort || length < udpLen || length > len(udp) {
		return datagram{}, false
	}
	udp = udp[:length]
	if !partial && binary.BigEndian.Uint16(udp[6:]) != 0 && fold(sum(pseudoHeader(src, dst, length), udp)) != 0xffff {
		return datagram{}, false
	}
	return datagram{
		payload: udp[udpLen:],
		from:    netip.AddrFrom4(src),
		fromMAC: hostMAC(frame[6:12]),
	}, true
}

// hostMAC is a copy of b, or nil for a group address or zeros.
func hostMAC(b []byte) net.HardwareAddr {
	if b[0]&1 != 0 || bytes.Equal(b, make([]byte, 6)) {
		return nil
	}
	return bytes.Clone(b)
}

// pseudoHeader is the sum of what a UDP checksum covers beside the datagram.
func pseudoHeader(src, dst [4]byte, length int) uint32 {
	return sum(sum(protocolUDP+uint32(length), src[:]), dst[:])
}

// sum adds up b in 16-bit words (RFC 1071). b is no longer than an IP packet,
// which a uint32 can hold the sum of.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}
