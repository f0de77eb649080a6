// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
)

var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// UDPConn is a dhcpclient.Conn for a link with an address. It is bound to
// 0.0.0.0 so that broadcast replies arrive as well, and sends from one source
// address.
type UDPConn struct {
	*socket
	source netip.Addr
}

// ListenUDP opens a UDPConn on port 68 of a link of the calling thread's network
// namespace, which must hold source. Of several on one link, the kernel gives a
// unicast reply to one alone.
func ListenUDP(ifname string, source netip.Addr) (*UDPConn, error) {
	name := fmt.Sprintf("DHCP socket on %s", ifname)
	if !source.Is4() {
		return nil, fmt.Errorf("%s: source %v is no IPv4 address", name, source)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, os.NewSyscallError("socket", err))
	}
	if err := bindUDP(fd, ifname); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s, err := newSocket(fd, name)
	if err != nil {
		return nil, err
	}
	return &UDPConn{socket: s, source: source}, nil
}

func bindUDP(fd int, ifname string) error {
	if err := attach(fd, udpFilter()); err != nil {
		return err
	}
	if err := unix.BindToDevice(fd, ifname); err != nil {
		return os.NewSyscallError("SO_BINDTODEVICE", err)
	}
	for _, option := range []int{unix.SO_REUSEADDR, unix.SO_BROADCAST} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: clientPort}))
}

// Send implements dhcpclient.Conn. An error wraps EPERM when a firewall of the
// namespace does not let the message out.
func (c *UDPConn) Send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	if !to.Is4() {
		return fmt.Errorf("%s: %v is no IPv4 address", c.name, to)
	}
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: c.source.As4()})
	return c.send(m.ToBytes(), info, &unix.SockaddrInet4{Port: serverPort, Addr: to.As4()})
}

// Receive implements dhcpclient.Conn. FromMAC is nil.
func (c *UDPConn) Receive(ctx context.Context) (dhcpclient.Received, error) {
	var r dhcpclient.Received
	err := c.receive(ctx, func(m message) bool {
		from, ok := m.from.(*unix.SockaddrInet4)
		if !ok {
			return false
		}
		msg, err := dhcpclient.Decode(m.data)
		if err != nil || msg.OpCode != dhcpv4.OpcodeBootReply {
			return false
		}
		r = dhcpclient.Received{Message: msg, From: netip.AddrFrom4(from.Addr)}
		return true
	})
	return r, err
}

// Close implements dhcpclient.Conn.
func (c *UDPConn) Close() error {
	if !c.shut() {
		return fmt.Errorf("%s: %w", c.name, net.ErrClosed)
	}
	return c.file.Close()
}
