// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	clientMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x11}
	serverMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0xff}
	otherMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x22}

	serverA = netip.MustParseAddr("10.0.0.1")
	serverB = netip.MustParseAddr("10.0.0.9")
	leased  = netip.MustParseAddr("10.0.0.57")
)

// fakeConn is a link with scripted servers on it. serve sees every message the
// client sends, counted from 1 for each message type.
type fakeConn struct {
	serve func(c *fakeConn, m *dhcpv4.DHCPv4, n int)
	sent  []sentMessage
	inbox chan Received
	// sendErr is what Send fails with.
	sendErr error
}

type sentMessage struct {
	*dhcpv4.DHCPv4
	to netip.Addr
	at time.Duration // since the first one
	t0 time.Time
}

func newFakeConn(serve func(c *fakeConn, m *dhcpv4.DHCPv4, n int)) *fakeConn {
	return &fakeConn{serve: serve, inbox: make(chan Received, 1<<16)}
}

// Send passes the message through its bytes, as a wire does.
func (c *fakeConn) Send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	decoded, err := Decode(m.ToBytes())
	if err != nil {
		return err
	}
	s := sentMessage{DHCPv4: decoded, to: to, t0: time.Now()}
	if len(c.sent) > 0 {
		s.at = s.t0.Sub(c.sent[0].t0)
	}
	c.sent = append(c.sent, s)
	if c.sendErr != nil {
		return c.sendErr
	}
	if c.serve != nil {
		c.serve(c, decoded, c.count(decoded.MessageType()))
	}
	return nil
}

func (c *fakeConn) Receive(ctx context.Context) (Received, error) {
	select {
	case r := <-c.inbox:
		return r, nil
	case <-ctx.Done():
		return Received{}, ctx.Err()
	}
}

func (c *fakeConn) Close() error { return nil }

// count is how many messages of type t were sent.
func (c *fakeConn) count(t dhcpv4.MessageType) int {
	n := 0
	for _, s := range c.sent {
		if s.MessageType() == t {
			n++
		}
	}
	return n
}

func (c *fakeConn) types() []dhcpv4.MessageType {
	var list []dhcpv4.MessageType
	for _, s := range c.sent {
		list = append(list, s.MessageType())
	}
	return list
}

// reply delivers m after a while, through its bytes.
func (c *fakeConn) reply(after time.Duration, m *dhcpv4.DHCPv4) {
	decoded, err := Decode(m.ToBytes())
	if err != nil {
		panic(err)
	}
	r := Received{Message: decoded, From: serverA, FromMAC: serverMAC}
	if after == 0 {
		c.inbox <- r
		return
	}
	time.AfterFunc(after, func() { c.inbox <- r })
}

// answer builds a reply to req with an hour's lease of addr; edits come last.
func answer(req *dhcpv4.DHCPv4, t dhcpv4.MessageType, server, addr netip.Addr, edits ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(t),
		dhcpv4.WithYourIP(ipOf(addr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ipOf(server))),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithOption(dhcpv4.OptRouter(ipOf(server))),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Hour)),
	}
	m, err := dhcpv4.NewReplyFromRequest(req, append(mods, edits...)...)
	if err != nil {
		panic(err)
	}
	return m
}

func offerOf(req *dhcpv4.DHCPv4, server, addr netip.Addr, edits ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	return answer(req, dhcpv4.MessageTypeOffer, server, addr, edits...)
}

func ackOf(req *dhcpv4.DHCPv4, server, addr netip.Addr, edits ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	return answer(req, dhcpv4.MessageTypeAck, server, addr, edits...)
}

func nakOf(req *dhcpv4.DHCPv4, server netip.Addr, why string) *dhcpv4.DHCPv4 {
	m := answer(req, dhcpv4.MessageTypeNak, server, netip.IPv4Unspecified(), dhcpv4.WithOption(dhcpv4.OptMessage(why)))
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionIPAddressLeaseTime} {
		m.DeleteOption(code)
	}
	return m
}

// goodServer offers and acknowledges what it is asked for at once.
func goodServer(c *fakeConn, m *dhcpv4.DHCPv4, _ int) {
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		c.reply(time.Millisecond, offerOf(m, serverA, leased))
	case dhcpv4.MessageTypeRequest:
		c.reply(time.Millisecond, ackOf(m, serverA, leased))
	}
}

func newClient(t *testing.T, conn Conn) *Client {
	return &Client{
		Params: Params{MAC: clientMAC, ClientID: append([]byte{1}, clientMAC...), Hostname: "web"},
		Conn:   conn,
		Log:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// fakeARP is a link on which hosts answer probes.
type fakeARP struct {
	probes    []time.Time
	announced []netip.Addr
	inbox     chan ARPPacket
	// onProbe sees every probe, counted from 1.
	onProbe func(a *fakeARP, n int, addr netip.Addr)
}

func newFakeARP(onProbe func(a *fakeARP, n int, addr netip.Addr)) *fakeARP {
	return &fakeARP{onProbe: onProbe, inbox: make(chan ARPPacket, 1<<12)}
}

func (a *fakeARP) Probe(addr netip.Addr) error {
	a.probes = append(a.probes, time.Now())
	if a.onProbe != nil {
		a.onProbe(a, len(a.probes), addr)
	}
	return nil
}

func (a *fakeARP) Announce(addr netip.Addr) error {
	a.announced = append(a.announced, addr)
	return nil
}

func (a *fakeARP) Receive(ctx context.Context) (ARPPacket, error) {
	select {
	case p := <-a.inbox:
		return p, nil
	case <-ctx.Done():
		return ARPPacket{}, ctx.Err()
	}
}

func (a *fakeARP) Close() error { return nil }

func (a *fakeARP) arrive(after time.Duration, p ARPPacket) {
	time.AfterFunc(after, func() { a.inbox <- p })
}
