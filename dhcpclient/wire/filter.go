// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/bpf"
)

// Packet types of linux/if_packet.h that a filter turns away.
const (
	packetOtherHost = 3
	packetOutgoing  = 4
)

const (
	whole = 0xffff // longer than any frame

	offEtherType = 12
	offIP        = ethernetLen
	offFragment  = offIP + 6
	offProtocol  = offIP + 9
	offARP       = ethernetLen

	// In a BOOTP message (RFC 951, 3).
	offChaddr = 28
	offCookie = 236
	bootReply = 2
	cookie    = 0x63825363
)

// test is one comparison of a filter: what load leaves in A, less sub, masked,
// must equal want, or with not set must differ from it.
type test struct {
	load bpf.Instruction
	sub  uint32
	mask uint32 // 0: all bits
	want uint32
	not  bool
}

// dhcpFilter passes whole UDP datagrams over IPv4 to port 68 that hold a
// BOOTREPLY for mac.
func dhcpFilter(mac net.HardwareAddr) []bpf.Instruction {
	const message = offIP + udpLen // behind the IP header, whose length is in X
	return program(append(linkTests(etherTypeIPv4), datagramTests()...),
		[]bpf.Instruction{bpf.LoadMemShift{Off: offIP}},
		append([]test{{load: bpf.LoadIndirect{Off: offIP + 2, Size: 2}, want: clientPort}},
			messageTests(func(off, size int) bpf.Instruction {
				return bpf.LoadIndirect{Off: uint32(message + off), Size: size}
			}, mac)...))
}

// udpFilter passes BOOTREPLYs on a UDP socket, where a filter sees the datagram
// from its UDP header on.
func udpFilter() []bpf.Instruction {
	return program(messageTests(func(off, size int) bpf.Instruction {
		return bpf.LoadAbsolute{Off: uint32(udpLen + off), Size: size}
	}, nil), nil, nil)
}

// arpFilter passes ARP requests and replies for IPv4 on Ethernet.
func arpFilter() []bpf.Instruction { return program(arpTests(), nil, nil) }

func arpTests() []test {
	return append(linkTests(etherTypeARP),
		test{load: bpf.LoadAbsolute{Off: offARP, Size: 4}, want: arpEthernet<<16 | etherTypeIPv4},
		test{load: bpf.LoadAbsolute{Off: offARP + 4, Size: 2}, want: 6<<8 | 4},
		// 1 or 2, less 1, has no other bit than the lowest.
		test{load: bpf.LoadAbsolute{Off: offARP + 6, Size: 2}, sub: arpRequest, mask: ^uint32(1)},
	)
}

// linkTests turn away what is for other hosts (a promiscuous parent sees it) and
// what leaves. A frame with the tag of a VLAN that has no link here is for other
// hosts too (__netif_receive_skb_core in net/core/dev.c).
func linkTests(etherType uint32) []test {
	return []test{
		{load: bpf.LoadAbsolute{Off: offEtherType, Size: 2}, want: etherType},
		{load: bpf.LoadExtension{Num: bpf.ExtType}, want: packetOtherHost, not: true},
		{load: bpf.LoadExtension{Num: bpf.ExtType}, want: packetOutgoing, not: true},
	}
}

func datagramTests() []test {
	return []test{
		{load: bpf.LoadAbsolute{Off: offProtocol, Size: 1}, want: protocolUDP},
		{load: bpf.LoadAbsolute{Off: offFragment, Size: 2}, mask: moreFragments | fragmentOffset},
	}
}

// messageTests look into the BOOTP message that load reads from. Without mac
// they leave chaddr alone.
func messageTests(load func(off, size int) bpf.Instruction, mac net.HardwareAddr) []test {
	tests := []test{
		{load: load(0, 1), want: bootReply},
		{load: load(offCookie, 4), want: cookie},
	}
	if mac != nil {
		tests = append(tests,
			test{load: load(offChaddr, 4), want: binary.BigEndian.Uint32(mac)},
			test{load: load(offChaddr+4, 2), want: uint32(binary.BigEndian.Uint16(mac[4:]))})
	}
	return tests
}

// program runs before, then middle, then after, and passes what all tests let
// pass. A load beyond the end of a frame drops it.
func program(before []test, middle []bpf.Instruction, after []test) []bpf.Instruction {
	var code []bpf.Instruction
	var jumps []int
	add := func(tests []test) {
		for _, t := range tests {
			code = append(code, t.load)
			if t.sub != 0 {
				code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpSub, Val: t.sub})
			}
			if t.mask != 0 {
				code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: t.mask})
			}
			cond := bpf.JumpNotEqual
			if t.not {
				cond = bpf.JumpEqual
			}
			jumps = append(jumps, len(code))
			code = append(code, bpf.JumpIf{Cond: cond, Val: t.want})
		}
	}
	add(before)
	code = append(code, middle...)
	add(after)
	drop := len(code) + 1
	for _, at := range jumps {
		j := code[at].(bpf.JumpIf)
		j.SkipTrue = uint8(drop - at - 1)
		code[at] = j
	}
	return append(code, bpf.RetConstant{Val: whole}, bpf.RetConstant{Val: 0})
}
