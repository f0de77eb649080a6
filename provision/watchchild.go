// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// groups are what the Watcher listens to. Addresses and routes are for children
// alone; filter keeps what is not of them off the socket.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NSID-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1)

// filter drops, before they are queued, all new addresses and routes and the
// deletions of routes that neither Apply nor the kernel made. A namespace that
// is busy with its routes costs the Watcher nothing.
func filter(fd int) error {
	native := func(typ uint16) uint32 { // BPF loads in network byte order
		var b [2]byte
		binary.NativeEndian.PutUint16(b[:], typ)
		return uint32(binary.BigEndian.Uint16(b[:]))
	}
	const protocol = unix.SizeofNlMsghdr + 5 // struct rtmsg, rtm_protocol
	drop, keep := bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 0xffffffff}
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // struct nlmsghdr, nlmsg_type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native(unix.RTM_NEWADDR), SkipTrue: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native(unix.RTM_NEWROUTE), SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native(unix.RTM_DELROUTE), SkipTrue: 4},
		bpf.LoadAbsolute{Off: protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTPROT_DHCP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTPROT_KERNEL, SkipTrue: 1},
		drop,
		keep,
	})
	if err != nil {
		return err
	}
	raw := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		raw[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]})
}

// lost reads which link of a namespace lost an address or a route.
func lost(h unix.NlMsghdr, data []byte) (index int, ok bool) {
	switch {
	case h.Type == unix.RTM_DELADDR:
		a, ok := parseAddress(data)
		return a.index, ok
	case h.Type == unix.RTM_DELROUTE && len(data) >= unix.SizeofRtMsg:
		// The broadcast and local routes go with their address.
		if typ := nl.DeserializeRtMsg(data).Type; typ != unix.RTN_UNICAST {
			return 0, false
		}
		r, ok := parseRoute(data)
		return r.index, ok && r.index > 0
	}
	return 0, false
}
