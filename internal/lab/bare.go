// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// Bare is the least that a DHCP client can be: a packet socket and the codec. It
// tests the lab itself, plays clients that misbehave, and is the floor that the
// benchmark measures mvdhcp against. It is for one goroutine.
type Bare struct {
	MAC   net.HardwareAddr
	fd    int
	index int
	buf   []byte
}

// OpenBare opens a client on a link of the namespace that the calling thread is
// in; see NS.Do.
func OpenBare(index int, mac net.HardwareAddr) (*Bare, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ip := network(unix.ETH_P_IP)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Bare{MAC: mac, fd: fd, index: index, buf: make([]byte, 2048)}, nil
}

// Bare opens a client on a link of the namespace.
func (n *NS) Bare(ifname string) *Bare {
	n.lab.tb.Helper()
	link, ok := n.Link(ifname)
	if !ok {
		n.lab.tb.Fatalf("lab: %s has no link %s", n.Name, ifname)
	}
	var b *Bare
	n.must(func() (err error) {
		b, err = OpenBare(link.Index, link.MAC)
		return err
	}, "open a client on %s", ifname)
	n.lab.onClose(b.Close)
	return b
}

// Close frees the socket, which takes the kernel some milliseconds.
func (b *Bare) Close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
	}
	b.fd = -1
}

// DORA asks for a lease and returns the ACK. Modifiers go into both requests.
func (b *Bare) DORA(timeout time.Duration, modifiers ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	deadline := time.Now().Add(timeout)
	modifiers = append([]dhcpv4.Modifier{dhcpv4.WithBroadcast(false)}, modifiers...)
	discover, err := dhcpv4.NewDiscovery(b.MAC, modifiers...)
	if err != nil {
		return nil, err
	}
	offer, err := b.Exchange(discover, dhcpv4.MessageTypeOffer, deadline)
	if err != nil {
		return nil, err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, modifiers...)
	if err != nil {
		return nil, err
	}
	return b.Exchange(request, dhcpv4.MessageTypeAck, deadline)
}

// Exchange broadcasts a message until an answer of the type is there, once a
// second. A DHCPNAK is an error.
func (b *Bare) Exchange(m *dhcpv4.DHCPv4, want dhcpv4.MessageType, deadline time.Time) (*dhcpv4.DHCPv4, error) {
	for time.Now().Before(deadline) {
		if err := b.Send(m, netip.IPv4Unspecified()); err != nil {
			return nil, err
		}
		again := time.Now().Add(time.Second)
		if again.After(deadline) {
			again = deadline
		}
		for {
			r, err := b.Receive(m.TransactionID, again)
			if err != nil {
				return nil, err
			}
			if r == nil {
				break
			}
			switch r.MessageType() {
			case want:
				return r, nil
			case dhcpv4.MessageTypeNak:
				return nil, fmt.Errorf("%v refused: %s", r.ServerIdentifier(), r.Message())
			}
		}
	}
	return nil, fmt.Errorf("no %v in time", want)
}

// Send broadcasts a message from an address.
func (b *Bare) Send(m *dhcpv4.DHCPv4, from netip.Addr) error {
	payload := m.ToBytes()
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	src := from.As4()
	copy(p[12:], src[:])
	copy(p[16:], net.IPv4bcast.To4())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(p[20:], dhcpv4.ClientPort)
	binary.BigEndian.PutUint16(p[22:], dhcpv4.ServerPort)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload))) // UDP checksum 0: none
	to := &unix.SockaddrLinklayer{Protocol: network(unix.ETH_P_IP), Ifindex: b.index, Halen: 6}
	copy(to.Addr[:], broadcastMAC)
	return unix.Sendto(b.fd, append(p, payload...), 0, to)
}

// Receive returns the next reply of a transaction, nil when none came in time.
func (b *Bare) Receive(xid dhcpv4.TransactionID, deadline time.Time) (*dhcpv4.DHCPv4, error) {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, nil
		}
		ready := []unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, int(left.Milliseconds())+1); err == unix.EINTR || err == nil && n == 0 {
			continue
		} else if err != nil {
			return nil, err
		}
		n, _, err := unix.Recvfrom(b.fd, b.buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR || err == unix.ENETDOWN {
			continue
		} else if err != nil {
			return nil, err
		}
		var p Packet
		decodeIPv4(&p, b.buf[:n])
		if p.DHCP != nil && p.DHCP.OpCode == dhcpv4.OpcodeBootReply && p.DHCP.TransactionID == xid {
			return p.DHCP, nil
		}
	}
}
