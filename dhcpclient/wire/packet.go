// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
)

// PacketOptions says what the frames of a PacketConn look like.
type PacketOptions struct {
	// MAC is the source of what is sent and the chaddr of what is received. It
	// need not be the link's own.
	MAC net.HardwareAddr
	// Source is the IP source address. Zero: 0.0.0.0.
	Source netip.Addr
	// NextHop is where unicast goes. Nil: the broadcast address.
	NextHop net.HardwareAddr
	// SendOnly opens a socket that receives nothing.
	SendOnly bool
}

// PacketConn is a dhcpclient.Conn of whole Ethernet frames, for a link that has
// no address yet, or whose UDP is shut by a firewall.
type PacketConn struct {
	linkConn
	options PacketOptions
	// filter waits for the first message to be out: the kernel takes its time to
	// compile it, and so does the server to answer.
	filter []bpf.Instruction
}

// ListenPacket opens a PacketConn on a link of the calling thread's network
// namespace.
func ListenPacket(ifindex int, o PacketOptions) (*PacketConn, error) {
	name := fmt.Sprintf("DHCP packet socket on link %d", ifindex)
	if err := checkMAC(o.MAC, name); err != nil {
		return nil, err
	}
	if len(o.NextHop) != 6 {
		o.NextHop = broadcastMAC
	}
	if !o.Source.Is4() {
		o.Source = netip.IPv4Unspecified()
	}
	c := &PacketConn{linkConn: linkConn{ifindex: ifindex}, options: o}
	protocol := uint16(0)
	if !o.SendOnly {
		protocol, c.filter = unix.ETH_P_IP, dhcpFilter(o.MAC)
	}
	var err error
	if c.socket, err = openLink(ifindex, protocol, nil, name); err != nil {
		return nil, err
	}
	return c, nil
}

// Send implements dhcpclient.Conn.
func (c *PacketConn) Send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	if !to.Is4() {
		return fmt.Errorf("%s: %v is no IPv4 address", c.name, to)
	}
	dst := c.options.NextHop
	if to == broadcastAddr {
		dst = broadcastMAC
	}
	err := c.write(appendFrame(nil, c.options.MAC, dst, c.options.Source, to, m.ToBytes()), unix.ETH_P_IP, dst)
	return errors.Join(err, c.narrow())
}

// narrow attaches the filter unless that is done.
func (c *PacketConn) narrow() error {
	if c.filter == nil {
		return nil
	}
	var failed error
	if err := c.raw.Control(func(fd uintptr) { failed = attach(int(fd), c.filter) }); err != nil {
		failed = err
	}
	if failed != nil {
		return fmt.Errorf("%s: %w", c.name, failed)
	}
	c.filter = nil
	return nil
}

// Receive implements dhcpclient.Conn.
func (c *PacketConn) Receive(ctx context.Context) (dhcpclient.Received, error) {
	if c.options.SendOnly {
		<-ctx.Done()
		return dhcpclient.Received{}, fmt.Errorf("%s: %w", c.name, ctx.Err())
	}
	var r dhcpclient.Received
	if err := c.narrow(); err != nil {
		return r, err
	}
	err := c.receive(ctx, func(m message) bool {
		if !forUs(m.from) {
			return false
		}
		d, ok := parseFrame(m.data, checksumPending(m.oob))
		if !ok {
			return false
		}
		msg, err := dhcpclient.Decode(d.payload)
		if err != nil || msg.OpCode != dhcpv4.OpcodeBootReply {
			return false
		}
		r = dhcpclient.Received{Message: msg, From: d.from, FromMAC: d.fromMAC}
		return true
	})
	return r, err
}

// forUs repeats the filter's test of the packet type, for what came before it.
func forUs(from unix.Sockaddr) bool {
	sll, ok := from.(*unix.SockaddrLinklayer)
	return !ok || sll.Pkttype != packetOtherHost && sll.Pkttype != packetOutgoing
}

// arpBacklog is how many bytes of ARP may wait for Receive: the thousand packets
// or so of a busy link while a DHCP server thinks. Only what waits takes memory.
const arpBacklog = 1 << 20

// ARPConn is a dhcpclient.ARPConn on one link.
type ARPConn struct {
	linkConn
	mac net.HardwareAddr
}

// ListenARP opens an ARPConn on a link of the calling thread's network
// namespace. mac is the sender of what it sends. What arrives from now on waits
// in the socket until Receive is called.
func ListenARP(ifindex int, mac net.HardwareAddr) (*ARPConn, error) {
	name := fmt.Sprintf("ARP socket on link %d", ifindex)
	if err := checkMAC(mac, name); err != nil {
		return nil, err
	}
	s, err := openLink(ifindex, unix.ETH_P_ARP, arpFilter(), name)
	if err != nil {
		return nil, err
	}
	if err := s.roomFor(arpBacklog); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return &ARPConn{linkConn: linkConn{socket: s, ifindex: ifindex}, mac: mac}, nil
}

// Probe implements dhcpclient.ARPConn.
func (c *ARPConn) Probe(addr netip.Addr) error {
	return c.request(netip.IPv4Unspecified(), addr)
}

// Announce implements dhcpclient.ARPConn.
func (c *ARPConn) Announce(addr netip.Addr) error { return c.request(addr, addr) }

func (c *ARPConn) request(sender, target netip.Addr) error {
	if !target.Is4() {
		return fmt.Errorf("%s: %v is no IPv4 address", c.name, target)
	}
	return c.write(appendARP(nil, c.mac, sender, target), unix.ETH_P_ARP, broadcastMAC)
}

// Receive implements dhcpclient.ARPConn.
func (c *ARPConn) Receive(ctx context.Context) (dhcpclient.ARPPacket, error) {
	var p dhcpclient.ARPPacket
	err := c.receive(ctx, func(m message) (ok bool) {
		p, ok = parseARP(m.data, c.mac)
		return ok
	})
	return p, err
}

// linkConn is what sockets of whole frames have in common.
type linkConn struct {
	*socket
	ifindex int
}

func (c *linkConn) write(frame []byte, protocol uint16, dst net.HardwareAddr) error {
	to := &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: c.ifindex, Halen: 6}
	copy(to.Addr[:], dst)
	return c.send(frame, nil, to)
}

// Close ends a Receive that is under way and leaves the rest to the background;
// see Flush.
func (c *linkConn) Close() error {
	if !c.shut() {
		return fmt.Errorf("%s: %w", c.name, net.ErrClosed)
	}
	closeLater(func() { _ = c.file.Close() })
	return nil
}

// checksumPending reports whether PACKET_AUXDATA (struct tpacket_auxdata in
// linux/if_packet.h) says that the UDP checksum is still to be filled in.
func checksumPending(oob []byte) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
		}
	}
	return false
}
