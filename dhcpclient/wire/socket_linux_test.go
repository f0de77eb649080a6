// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sender is a socket on the server's end that sends any frame.
func (l *lan) sender() *linkConn {
	l.t.Helper()
	var c *linkConn
	in(l.t, l.server, func() error {
		link, err := netlink.LinkByName("srv0")
		if err != nil {
			return err
		}
		s, err := openLink(link.Attrs().Index, 0, nil, "sender")
		c = &linkConn{socket: s, ifindex: link.Attrs().Index}
		return err
	})
	l.t.Cleanup(func() { c.Close() })
	return c
}

// ack is an ACK for mac in a frame for it.
func ack(mac net.HardwareAddr) []byte {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: mac,
		Options: dhcpv4.Options{53: {5}, 54: {10, 77, 0, 1}},
	}
	f := replyFrame(m.ToBytes())
	copy(f, mac)
	return f
}

// passed is the number of frames that came through the filter of s since the
// last call.
func passed(t *testing.T, s *socket) int {
	t.Helper()
	var n uint32
	err := s.raw.Control(func(fd uintptr) {
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			t.Error(err)
			return
		}
		n = stats.Packets
	})
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func TestDHCPFilter(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	conn := c.narrowed()
	out := l.sender()
	set := func(off int, b ...byte) func(f []byte) []byte {
		return func(f []byte) []byte { copy(f[off:], b); return f }
	}
	insert := func(off int, b ...byte) func(f []byte) []byte {
		return func(f []byte) []byte { return append(f[:off:off], append(b, f[off:]...)...) }
	}
	const message = ethernetLen + ipv4Len + udpLen
	tests := []struct {
		name string
		edit func(f []byte) []byte
		want int
	}{
		{"reply", func(f []byte) []byte { return f }, 1},
		{"broadcast", set(0, broadcastMAC...), 1},
		{"IP options", func(f []byte) []byte {
			f = insert(34, 1, 1, 1, 0)(f)
			f[14] = 0x46
			return f
		}, 1},
		{"priority tag", insert(12, 0x81, 0, 0xe0, 0), 1},

		{"tag of a VLAN", insert(12, 0x81, 0, 0, 5), 0},
		{"request", set(message, 1), 0},
		{"without cookie", set(message+offCookie, 0), 0},
		{"for another chaddr, first half", set(message+offChaddr+3, 1), 0},
		{"for another chaddr, second half", set(message+offChaddr+5, 1), 0},
		{"to port 67", set(36, 0, 67), 0},
		{"TCP", set(23, 6), 0},
		{"first fragment", set(20, 0x20), 0},
		{"later fragment", set(21, 1), 0},
		{"IPv6", set(12, 0x86, 0xdd), 0},
		{"cut off", func(f []byte) []byte { return f[:message+offCookie] }, 0},
		{"to another MAC", set(0, 2, 0, 0, 0, 0, 0x77), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			passed(t, conn.socket)
			if err := out.write(tt.edit(ack(c.mac())), unix.ETH_P_IP, c.mac()); err != nil {
				t.Fatal(err)
			}
			// A frame that passes comes behind it, and is the mark that both are through.
			if err := out.write(ack(c.mac()), unix.ETH_P_IP, c.mac()); err != nil {
				t.Fatal(err)
			}
			n := 0
			l.await("the mark", func() bool { n += passed(t, conn.socket); return n > tt.want })
			if n != tt.want+1 {
				t.Errorf("%d frames passed, want %d", n-1, tt.want)
			}
		})
	}
}

// narrowed is a packet socket with its filter, as after its first message.
func (c *child) narrowed() *PacketConn {
	c.lan.t.Helper()
	conn := c.packet(PacketOptions{})
	if err := conn.narrow(); err != nil {
		c.lan.t.Fatal(err)
	}
	return conn
}

// What came between the opening of a socket and its first message, which brings
// the filter, is no reply.
func TestFramesBeforeFilter(t *testing.T) {
	l := newLAN(t)
	var conn *PacketConn
	in(t, l.host, func() (err error) {
		conn, err = ListenPacket(l.parent.Attrs().Index, PacketOptions{MAC: macA})
		return err
	})
	defer conn.Close()
	out := l.sender()
	other, port, request, all := ack(macA), ack(macA), ack(macA), ack(macA)
	copy(other, macB)
	binary.BigEndian.PutUint16(port[36:], 53)
	request[42] = 1
	all[46] ^= 0xff // its xid
	for _, f := range [][]byte{port, request, all} {
		copy(f, broadcastMAC)
		f[40], f[41] = 0, 0 // no UDP checksum
	}
	for _, f := range [][]byte{other, port, request} {
		if err := out.write(f, unix.ETH_P_IP, f[:6]); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Send(&dhcpv4.DHCPv4{ClientHWAddr: macA}, broadcastAddr); err != nil {
		t.Fatal(err)
	}
	if conn.filter != nil {
		t.Error("the first message brought no filter")
	}
	if err := out.write(all, unix.ETH_P_IP, broadcastMAC); err != nil {
		t.Fatal(err)
	}
	r, err := conn.Receive(l.ctx())
	if err != nil || r.Message.TransactionID[0] != 0xff {
		t.Fatalf("got %+v, %v; want the last frame", r, err)
	}
	if n := passed(t, conn.socket); n != 4 {
		t.Errorf("%d frames arrived, want 4: there was nothing to tell apart", n)
	}
}

// What is for other hosts or VLANs arrives at a parent, and is none of ours.
func TestDHCPFilterOtherHost(t *testing.T) {
	l := newLAN(t)
	var conn *PacketConn
	in(t, l.host, func() (err error) {
		conn, err = ListenPacket(l.parent.Attrs().Index, PacketOptions{MAC: macA})
		if err != nil {
			return err
		}
		return conn.narrow()
	})
	defer conn.Close()
	out := l.sender()
	tagged := ack(macA)
	tagged = append(append(tagged[:12:12], 0x81, 0, 0, 5), tagged[12:]...)
	other, all := ack(macA), ack(macA)
	copy(other, macB)
	copy(all, broadcastMAC)
	copy(tagged, broadcastMAC)
	for _, f := range [][]byte{tagged, other, all} {
		if err := out.write(f, binary.BigEndian.Uint16(f[12:]), f[:6]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Receive(l.ctx()); err != nil {
		t.Fatal(err)
	}
	if n := passed(t, conn.socket); n != 1 {
		t.Errorf("%d frames passed, want the broadcast alone", n)
	}
}

func TestARPFilter(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	conn := c.arp()
	out := l.sender()
	good := appendARP(nil, macB, hostB, hostA)
	for _, f := range [][]byte{
		append(append([]byte{}, good[:20]...), append([]byte{0, 3}, good[22:]...)...), // RARP
		append(append([]byte{}, good[:20]...), append([]byte{0, 0}, good[22:]...)...),
		append(append([]byte{}, good[:14]...), append([]byte{0, 6}, good[16:]...)...), // another link type
		append(append([]byte{}, good[:18]...), append([]byte{8, 4}, good[20:]...)...),
		ack(c.mac()),
	} {
		if err := out.write(f, binary.BigEndian.Uint16(f[12:]), broadcastMAC); err != nil {
			t.Fatal(err)
		}
	}
	reply := append(append([]byte{}, good[:20]...), append([]byte{0, 2}, good[22:]...)...)
	for _, f := range [][]byte{appendARP(nil, c.mac(), hostA, hostA), good, reply} {
		if err := out.write(f, unix.ETH_P_ARP, broadcastMAC); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []bool{true, false} {
		p, err := conn.Receive(l.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if p.Request != want || p.SenderMAC.String() != macB.String() || p.SenderIP != hostB || p.TargetIP != hostA {
			t.Errorf("got %+v", p)
		}
	}
	if n := passed(t, conn.socket); n < 2 || n > 3 {
		t.Errorf("%d frames passed, want two, and the one with our own address at the most", n)
	}
}

// Ordinary traffic must cost the process nothing.
func TestStrayFrames(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	conn := c.narrowed()
	arp := c.arp()
	out := l.sender()
	stray := make([][]byte, 4)
	for i := range stray {
		stray[i] = ack(c.mac())
	}
	binary.BigEndian.PutUint16(stray[0][36:], 53)        // another port
	copy(stray[1][42+offChaddr:], []byte{2, 0, 0, 0, 9}) // a sibling's reply
	stray[2][42] = 1                                     // a request
	stray[3][23] = 6                                     // TCP
	for n := range 100_000 {
		if err := out.write(stray[n%4], unix.ETH_P_IP, c.mac()); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.write(ack(c.mac()), unix.ETH_P_IP, c.mac()); err != nil {
		t.Fatal(err)
	}
	r, err := conn.Receive(l.ctx())
	if err != nil {
		t.Fatal(err)
	}
	if r.From != hostB || r.FromMAC.String() != macB.String() {
		t.Errorf("reply from %v, %v", r.From, r.FromMAC)
	}
	if n := passed(t, conn.socket); n != 1 {
		t.Errorf("%d frames came through the filter, want 1", n)
	}
	if n := passed(t, arp.socket); n != 0 {
		t.Errorf("%d frames came through the filter for ARP", n)
	}
}

func TestLinkDown(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	conn := c.packet(PacketOptions{})
	out := l.sender()
	got := make(chan error, 1)
	go func() {
		_, err := conn.Receive(l.ctx())
		got <- err
	}()
	flap := func(set func(netlink.Link) error) {
		in(t, c.ns, func() error { return set(c.Link) })
	}
	flap(netlink.LinkSetDown)
	err := c.packet(PacketOptions{}).Send(&dhcpv4.DHCPv4{ClientHWAddr: c.mac()}, broadcastAddr)
	if !errors.Is(err, unix.ENETDOWN) || !strings.Contains(err.Error(), "link is down") {
		t.Errorf("Send on a link that is down: %v", err)
	}
	flap(netlink.LinkSetUp)
	if err := out.write(ack(c.mac()), unix.ETH_P_IP, c.mac()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("Receive over a flap of the link: %v", err)
	}
}

func TestReceiveEnds(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	out := l.sender()
	addr := netip.MustParsePrefix("10.77.0.57/24")
	l.up(c.ns, "eth0", addr)
	packet, udp := c.packet(PacketOptions{}), c.udp(addr.Addr())
	tests := []struct {
		name    string
		receive func(ctx context.Context) error
		close   func() error
		hears   bool
	}{
		{"packet", func(ctx context.Context) error { _, err := packet.Receive(ctx); return err }, packet.Close, true},
		{"send-only", func(ctx context.Context) error {
			_, err := c.packet(PacketOptions{SendOnly: true}).Receive(ctx)
			return err
		}, nil, false},
		{"UDP", func(ctx context.Context) error { _, err := udp.Receive(ctx); return err }, udp.Close, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if err := tt.receive(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that is done: %v", err)
			}
			soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := tt.receive(soon); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline: %v", err)
			}
			for range 200 { // the waker of one Receive must not reach into the next
				ctx, cancel := context.WithCancel(t.Context())
				go cancel()
				if err := tt.receive(ctx); !errors.Is(err, context.Canceled) {
					t.Fatalf("cancelled: %v", err)
				}
			}
			if !tt.hears {
				return
			}
			f := ack(c.mac())
			if tt.name == "UDP" {
				f = appendReply(c.mac(), addr.Addr())
			}
			if err := out.write(f, unix.ETH_P_IP, c.mac()); err != nil {
				t.Fatal(err)
			}
			if err := tt.receive(l.ctx()); err != nil {
				t.Errorf("afterwards it is deaf: %v", err)
			}
			done := make(chan error, 1)
			go func() { done <- tt.receive(context.Background()) }()
			if err := tt.close(); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed under way: %v", err)
			}
			if err := tt.receive(context.Background()); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
			if err := tt.close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed twice: %v", err)
			}
		})
	}
	if err := packet.Send(&dhcpv4.DHCPv4{ClientHWAddr: c.mac()}, broadcastAddr); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send on a closed socket: %v", err)
	}
}

// appendReply is an ACK that a UDP socket bound to addr gets.
func appendReply(mac net.HardwareAddr, addr netip.Addr) []byte {
	payload := ack(mac)[ethernetLen+ipv4Len+udpLen:]
	f := appendFrame(nil, macB, mac, hostB, addr, payload)
	binary.BigEndian.PutUint16(f[34:], serverPort)
	binary.BigEndian.PutUint16(f[36:], clientPort)
	return f
}

// A firewall that lets nothing out is told from a link that does not work.
func TestFirewall(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq()
	c := l.child("02:00:00:00:00:11")
	b := c.acquire()
	l.up(c.ns, "eth0", b.Address)
	in(t, c.ns, func() error {
		out, err := exec.Command("nft", "add table ip f; add chain ip f out { type filter hook output priority 0; policy drop; }").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft (package nftables is needed): %w: %s", err, out)
		}
		return nil
	})
	if _, err := c.client(c.udp(b.Address.Addr())).Renew(l.ctx(), b); !errors.Is(err, unix.EPERM) {
		t.Fatalf("Renew by UDP: %v, want EPERM", err)
	}
	conn := c.packet(PacketOptions{Source: b.Address.Addr(), NextHop: b.NextHopMAC})
	if got, err := c.client(conn).Renew(l.ctx(), b); err != nil || got.Address != b.Address {
		t.Errorf("Renew by packet socket: %v, %v", got.Address, err)
	}
}
