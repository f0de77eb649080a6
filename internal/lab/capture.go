// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Filter is what a capture keeps.
type Filter int

// The filters.
const (
	DHCPAndARP Filter = iota // UDP ports 67 and 68, and ARP
	DHCPOnly
	ARPOnly
	Everything
)

func (f Filter) keeps(p Packet) bool {
	isDHCP := p.SrcPort == 67 || p.SrcPort == 68 || p.DstPort == 67 || p.DstPort == 68
	isARP := p.EtherType == etherARP
	return f == Everything || f != ARPOnly && isDHCP || f != DHCPOnly && isARP
}

// program turns away in the kernel what the filter keeps none of, so that other
// traffic fills no buffer: all but ARP, UDP over IPv4 and frames with a tag.
func (f Filter) program() ([]bpf.RawInstruction, error) {
	const etherType, protocol = 12, 14 + 9
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 2},
		bpf.LoadAbsolute{Off: protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3, SkipFalse: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_8021Q, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_8021AD, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
}

// Capture is what passes an interface, from the moment it was made until the
// lab or the interface goes. It is safe for concurrent use.
type Capture struct {
	lab    *Lab
	name   string
	filter Filter
	sock   *os.File
	ended  chan struct{}

	mu      sync.Mutex
	packets []Packet
	changed chan struct{} // closed and replaced at each packet
}

// Capture listens at an interface of the namespace; "" is all of them. At a
// host's parent it sees the wire: its children's traffic with all but each
// other. When the test fails, what it saw is written to a pcap file.
func (n *NS) Capture(ifname string, filter Filter) *Capture {
	n.lab.tb.Helper()
	c := &Capture{lab: n.lab, name: n.Name + "-" + ifname, filter: filter,
		ended: make(chan struct{}), changed: make(chan struct{})}
	n.must(func() (err error) {
		c.sock, err = packetSocket(ifname, filter)
		return err
	}, "capture at %q", ifname)
	go c.read()
	n.lab.onClose(c.close)
	return c
}

// All is what was captured up to now.
func (c *Capture) All() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets)
}

// Match is those packets of All that match.
func (c *Capture) Match(match func(Packet) bool) []Packet {
	return slices.DeleteFunc(c.All(), func(p Packet) bool { return !match(p) })
}

// Mark is a point in the capture for WaitAfter and After: all packets up to now
// lie before it.
func (c *Capture) Mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.packets)
}

// After is All without what lies before mark.
func (c *Capture) After(mark int) []Packet { return c.All()[mark:] }

// Wait returns the first packet that matches, which may have passed already. It
// ends the test when none comes within timeout.
func (c *Capture) Wait(timeout time.Duration, what string, match func(Packet) bool) Packet {
	c.lab.tb.Helper()
	return c.WaitAfter(0, timeout, what, match)
}

// WaitAfter is Wait for packets after mark.
func (c *Capture) WaitAfter(mark int, timeout time.Duration, what string, match func(Packet) bool) Packet {
	c.lab.tb.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		c.mu.Lock()
		packets, changed := c.packets[mark:], c.changed
		c.mu.Unlock()
		for _, p := range packets {
			if match(p) {
				return p
			}
		}
		mark += len(packets)
		select {
		case <-changed:
		case <-timer.C:
			c.lab.tb.Fatalf("lab: capture at %s: no %s within %v; seen:\n%s", c.name, what, timeout, c)
		}
	}
}

// String lists the packets, one a line.
func (c *Capture) String() string {
	var b strings.Builder
	for _, p := range c.All() {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

func (c *Capture) close() {
	lost := c.lost()
	c.sock.Close()
	<-c.ended
	if c.lab.tb.Failed() {
		if file, err := c.save(); err != nil {
			c.lab.tb.Logf("lab: capture at %s: %v", c.name, err)
		} else {
			c.lab.tb.Logf("lab: capture at %s, %d frames lost: %s", c.name, lost, file)
		}
	}
}

// lost counts the frames that there was no room for (packet(7),
// PACKET_STATISTICS).
func (c *Capture) lost() (n uint32) {
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n = stats.Drops
		}
	})
	return n
}

// packetSocket opens a socket for the frames of an interface that a filter may
// keep, in the namespace of the calling thread.
func packetSocket(ifname string, filter Filter) (*os.File, error) {
	index := 0
	if ifname != "" {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return nil, err
		}
		index = link.Attrs().Index
	}
	// Protocol 0 hears nothing until the socket is bound to the interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	sock := os.NewFile(uintptr(fd), "capture")
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			sock.Close()
			return nil, fmt.Errorf("set socket option: %w", err)
		}
	}
	if filter != Everything {
		program, err := filter.program()
		if err == nil {
			code := make([]unix.SockFilter, len(program))
			for i, in := range program {
				code[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
			}
			err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
		}
		if err != nil {
			sock.Close()
			return nil, fmt.Errorf("attach filter: %w", err)
		}
	}
	all := network(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		sock.Close()
		return nil, err
	}
	return sock, nil
}

func (c *Capture) read() {
	defer close(c.ended)
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return
	}
	frame, oob := make([]byte, 65536), make([]byte, 256)
	for {
		var n, noob int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, noob, _, from, rerr = unix.Recvmsg(int(fd), frame, oob, unix.MSG_DONTWAIT)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil { // closed
			return
		}
		if rerr != nil { // ENETDOWN, once, when the link goes down
			continue
		}
		p := decode(slices.Clone(frame[:n]))
		p.Time = time.Now()
		readAncillary(&p, oob[:noob])
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			p.Outgoing = ll.Pkttype == unix.PACKET_OUTGOING
		}
		if c.filter.keeps(p) {
			c.add(p)
		}
	}
}

func (c *Capture) add(p Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets = append(c.packets, p)
	close(c.changed)
	c.changed = make(chan struct{})
}

// readAncillary takes the time and the VLAN id, which the kernel has taken out
// of the frame.
func readAncillary(p *Packet, oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16:
			p.Time = time.Unix(int64(le64(m.Data)), int64(le64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18:
			// struct tpacket_auxdata (linux/if_packet.h).
			if status := le32(m.Data); status&unix.TP_STATUS_VLAN_VALID != 0 {
				p.VLAN = int(le16(m.Data[16:]) & 0xfff)
			}
		}
	}
}
