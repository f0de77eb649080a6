// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Conn carries the DHCP messages of one exchange on one link. Its methods are
// not for concurrent use, except Close.
type Conn interface {
	// Send sends m from port 68 to port 67 of to, which is 255.255.255.255 or
	// a server's address. The IP source address is the one the Conn was opened
	// with.
	Send(m *dhcpv4.DHCPv4, to netip.Addr) error
	// Receive returns the next well-formed BOOTREPLY sent to port 68, or an
	// error that wraps ctx.Err() once ctx is done. Frames that are no such
	// reply never surface as errors.
	Receive(ctx context.Context) (Received, error)
	// Close frees the socket without waiting for it.
	Close() error
}

// Received is one reply with the addresses it came from.
type Received struct {
	Message *dhcpv4.DHCPv4
	// From is the IP source address.
	From netip.Addr
	// FromMAC is the link-layer source: the server, or the relay or router in
	// front of it. Nil when the Conn does not see it (a UDP socket).
	FromMAC net.HardwareAddr
}

// ARPConn sends and receives ARP on one link for RFC 5227. Its methods are not
// for concurrent use, except Close.
type ARPConn interface {
	// Probe broadcasts an ARP Probe for addr (RFC 5227, 1.1): sender address 0.
	Probe(addr netip.Addr) error
	// Announce broadcasts an ARP Announcement of addr (RFC 5227, 1.1).
	Announce(addr netip.Addr) error
	// Receive returns the next ARP packet not sent by the Conn's own MAC, or
	// an error that wraps ctx.Err() once ctx is done.
	Receive(ctx context.Context) (ARPPacket, error)
	// Close frees the socket without waiting for it.
	Close() error
}

// ARPPacket is the part of an ARP packet that RFC 5227 looks at.
type ARPPacket struct {
	Request   bool // request or reply
	SenderMAC net.HardwareAddr
	SenderIP  netip.Addr
	TargetIP  netip.Addr
}

// Claim is a host's use of an address, as the sender fields of an ARP packet
// show it (RFC 5227, 2.4). It may be a lie.
type Claim struct {
	MAC  [6]byte
	Addr netip.Addr
	// Direct says that it was sent to one host alone. Between a parent's
	// children in the namespace of the parent such packets are heard there too.
	Direct bool
}

// ClaimConn hears the claims that the hosts on one link broadcast.
type ClaimConn interface {
	// Listen calls heard for each claim until the Conn is closed or its link
	// is down or gone, and returns the reason. It bounds how many it hears in
	// a second.
	Listen(heard func(Claim)) error
	// Close ends Listen and frees the socket without waiting for it.
	Close() error
}
