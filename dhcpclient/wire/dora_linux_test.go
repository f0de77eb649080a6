// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
)

// request is a frame to port 67 as the server's link saw it.
type request struct {
	SrcMAC, DstMAC string
	Src, Dst       netip.Addr
	Type           string
}

// capture collects what clients send to the server from now on.
func (l *lan) capture() func(n int) []request {
	l.t.Helper()
	var s *socket
	in(l.t, l.server, func() error {
		link, err := netlink.LinkByName("srv0")
		if err != nil {
			return err
		}
		s, err = openLink(link.Attrs().Index, unix.ETH_P_IP, []bpf.Instruction{bpf.RetConstant{Val: whole}}, "capture")
		return err
	})
	l.t.Cleanup(func() { s.file.Close() })
	return func(n int) []request {
		l.t.Helper()
		var list []request
		err := s.receive(l.ctx(), func(m message) bool {
			f := m.data
			if len(f) < ethernetLen+ipv4Len+udpLen+240 || f[23] != protocolUDP || f[37] != serverPort {
				return false
			}
			msg, err := dhcpclient.Decode(f[ethernetLen+ipv4Len+udpLen:])
			if err != nil {
				l.t.Error(err)
				return false
			}
			list = append(list, request{
				SrcMAC: net.HardwareAddr(f[6:12]).String(), DstMAC: net.HardwareAddr(f[:6]).String(),
				Src: netip.AddrFrom4([4]byte(f[26:])), Dst: netip.AddrFrom4([4]byte(f[30:])),
				Type: msg.MessageType().String(),
			})
			return len(list) == n
		})
		if err != nil {
			l.t.Fatalf("%d of %d requests seen: %v", len(list), n, err)
		}
		return list
	}
}

func TestAcquire(t *testing.T) {
	tests := []struct {
		name string
		args []string
	}{
		{"unicast replies", nil},
		{"broadcast replies", []string{"--dhcp-broadcast"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLAN(t)
			l.dnsmasq(append(tt.args, "--dhcp-option=option:router,10.77.0.1", "--dhcp-option=121,0.0.0.0/0,10.77.0.1,10.9.1.0/24,10.77.0.2", "--dhcp-option=26,1400")...)
			sent := l.capture()
			c := l.child("02:00:00:00:00:11")
			b := c.acquire()
			if !subnet.Contains(b.Address.Addr()) || b.Server != serverIP || b.Router != serverIP || b.MTU != 1400 ||
				b.Lease != time.Hour || b.Hostname != "web" || b.NextHopMAC == nil {
				t.Errorf("binding %+v is not what the server was told to give", b)
			}
			want := []dhcpclient.Route{{Dst: netip.MustParsePrefix("10.9.1.0/24"), Via: netip.MustParseAddr("10.77.0.2")}}
			if diff := cmp.Diff(want, b.Routes, cmpAddr, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
			for i, r := range sent(2) {
				want := request{SrcMAC: c.mac().String(), DstMAC: "ff:ff:ff:ff:ff:ff", Src: netip.IPv4Unspecified(), Dst: broadcastAddr, Type: []string{"DISCOVER", "REQUEST"}[i]}
				if diff := cmp.Diff(want, r, cmpAddr); diff != "" {
					t.Errorf("request %d (-want +got):\n%s", i, diff)
				}
			}
			l.await("the lease file holds the lease", func() bool { return l.leased(c.mac(), b.Address.Addr()) })
		})
	}
}

func TestExtend(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq()
	c := l.child("02:00:00:00:00:11")
	b := c.acquire()
	own := b.Address.Addr()
	l.up(c.ns, "eth0", netip.MustParsePrefix("10.77.0.250/24")) // the kernel would send from this one
	l.up(c.ns, "eth0", b.Address)
	all := net.HardwareAddr(broadcastMAC).String()
	type client = dhcpclient.Client
	type binding = dhcpclient.Binding
	renew := func(c *client, ctx context.Context) (binding, error) { return c.Renew(ctx, b) }
	rebind := func(c *client, ctx context.Context) (binding, error) { return c.Rebind(ctx, b) }
	reboot := func(c *client, ctx context.Context) (binding, error) { return c.Reboot(ctx, own) }
	udp := func() dhcpclient.Conn { return c.udp(own) }
	packets := func(o PacketOptions) func() dhcpclient.Conn {
		return func() dhcpclient.Conn { return c.packet(o) }
	}
	tests := []struct {
		name   string
		conn   func() dhcpclient.Conn
		extend func(*client, context.Context) (binding, error)
		want   request
	}{
		{"Renew by UDP", udp, renew, request{DstMAC: b.NextHopMAC.String(), Src: own, Dst: serverIP}},
		{"Renew by packets", packets(PacketOptions{Source: own, NextHop: b.NextHopMAC}), renew, request{DstMAC: b.NextHopMAC.String(), Src: own, Dst: serverIP}},
		{"Renew with the next hop unknown", packets(PacketOptions{Source: own}), renew, request{DstMAC: all, Src: own, Dst: serverIP}},
		{"Rebind by UDP", udp, rebind, request{DstMAC: all, Src: own, Dst: broadcastAddr}},
		{"Rebind by packets", packets(PacketOptions{Source: own, NextHop: b.NextHopMAC}), rebind, request{DstMAC: all, Src: own, Dst: broadcastAddr}},
		{"Reboot", packets(PacketOptions{}), reboot, request{DstMAC: all, Src: netip.IPv4Unspecified(), Dst: broadcastAddr}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sent := l.capture()
			conn := tt.conn()
			defer conn.Close()
			got, err := tt.extend(c.client(conn), l.ctx())
			if err != nil {
				t.Fatalf("%v\n%s", err, l.journal())
			}
			if got.Address != b.Address || got.Server != serverIP || got.NextHopMAC.String() != b.NextHopMAC.String() && tt.want.Dst == serverIP {
				t.Errorf("binding %+v", got)
			}
			tt.want.SrcMAC, tt.want.Type = c.mac().String(), "REQUEST"
			if diff := cmp.Diff(tt.want, sent(1)[0], cmpAddr); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// dnsmasq broadcasts its NAKs.
func TestNAK(t *testing.T) {
	l := newLAN(t)
	stop := l.dnsmasq()
	c := l.child("02:00:00:00:00:11")
	b := c.acquire()
	own := b.Address.Addr()
	l.up(c.ns, "eth0", b.Address)
	stop()
	l.leases += "-empty"
	l.dnsmasq("--dhcp-host=02:00:00:00:00:99," + own.String())
	tests := []struct {
		name string
		ask  func(ctx context.Context) (dhcpclient.Binding, error)
	}{
		{"Renew by UDP", func(ctx context.Context) (dhcpclient.Binding, error) {
			return c.client(c.udp(own)).Renew(ctx, b)
		}},
		{"Renew by packets", func(ctx context.Context) (dhcpclient.Binding, error) {
			return c.client(c.packet(PacketOptions{Source: own})).Renew(ctx, b)
		}},
		{"Rebind", func(ctx context.Context) (dhcpclient.Binding, error) {
			return c.client(c.udp(own)).Rebind(ctx, b)
		}},
		{"Reboot", func(ctx context.Context) (dhcpclient.Binding, error) {
			return c.client(c.packet(PacketOptions{})).Reboot(ctx, own)
		}},
		{"Reboot on another network", func(ctx context.Context) (dhcpclient.Binding, error) {
			return c.client(c.packet(PacketOptions{})).Reboot(ctx, netip.MustParseAddr("192.168.7.7"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.ask(l.ctx())
			var nak *dhcpclient.NAKError
			if !errors.As(err, &nak) || nak.Server != serverIP || nak.Message == "" {
				t.Errorf("got %v, %v; want a NAK with a reason\n%s", got.Address, err, l.journal())
			}
		})
	}
}

// The line in the server's lease file says whether it took the RELEASE.
func TestRelease(t *testing.T) {
	tests := []struct {
		name string
		conn func(c *child, b dhcpclient.Binding) dhcpclient.Conn
	}{
		{"by UDP", func(c *child, b dhcpclient.Binding) dhcpclient.Conn {
			c.lan.up(c.ns, "eth0", b.Address)
			return c.udp(b.Address.Addr())
		}},
		{"by packets", func(c *child, b dhcpclient.Binding) dhcpclient.Conn {
			return c.packet(PacketOptions{Source: b.Address.Addr(), NextHop: b.NextHopMAC, SendOnly: true})
		}},
		{"from the parent, the child being gone", func(c *child, b dhcpclient.Binding) dhcpclient.Conn {
			in(c.lan.t, c.ns, func() error { return netlink.LinkDel(c.Link) })
			var conn *PacketConn
			in(c.lan.t, c.lan.host, func() (err error) {
				conn, err = ListenPacket(c.lan.parent.Attrs().Index, PacketOptions{MAC: c.mac(), Source: b.Address.Addr(), NextHop: b.NextHopMAC, SendOnly: true})
				return err
			})
			c.lan.t.Cleanup(func() { conn.Close() })
			return conn
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLAN(t)
			l.dnsmasq()
			c := l.child("02:00:00:00:00:11")
			b := c.acquire()
			own := b.Address.Addr()
			l.await("the lease file holds the lease", func() bool { return l.leased(c.mac(), own) })
			sent := l.capture()
			if err := c.client(tt.conn(c, b)).Release(b); err != nil {
				t.Fatal(err)
			}
			want := request{SrcMAC: c.mac().String(), DstMAC: b.NextHopMAC.String(), Src: own, Dst: serverIP, Type: "RELEASE"}
			if diff := cmp.Diff(want, sent(1)[0], cmpAddr); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			l.await("the lease file lost the lease", func() bool { return !l.leased(c.mac(), own) })
		})
	}
}

// A sibling squats on the address that is offered.
func TestConflict(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq()
	c, squatter := l.child("02:00:00:00:00:11"), l.child("02:00:00:00:00:22")
	client := c.client(c.packet(PacketOptions{}))
	window, cancel := context.WithTimeout(l.ctx(), 100*time.Millisecond)
	defer cancel()
	offers, err := client.Discover(window)
	if err != nil {
		t.Fatal(err)
	}
	taken := offers[0].Address
	l.up(squatter.ns, "eth0", taken)

	client.ARP, client.Conflict = c.arp(), dhcpclient.ConflictFast
	b, err := client.Acquire(l.ctx())
	var conflict *dhcpclient.ConflictError
	if !errors.As(err, &conflict) {
		t.Fatalf("got %v, %v; want a conflict about %v", b.Address, err, taken)
	}
	want := dhcpclient.ConflictError{Addr: taken.Addr(), Server: serverIP, By: squatter.mac(), Declined: true}
	if diff := cmp.Diff(want, *conflict, cmpAddr); diff != "" {
		t.Errorf("conflict (-want +got):\n%s", diff)
	}
	l.await("the lease file lost the lease", func() bool { return !l.leased(c.mac(), taken.Addr()) })
	if b, err := client.Acquire(l.ctx()); err != nil || b.Address == taken {
		t.Errorf("afterwards got %v, %v", b.Address, err)
	}
}

// What Check refuses is not offered again.
func TestCheck(t *testing.T) {
	l := newLAN(t)
	l.dnsmasq()
	c := l.child("02:00:00:00:00:11")
	client := c.client(c.packet(PacketOptions{}))
	refused := map[netip.Addr]bool{}
	held := errors.New("the host itself has it")
	client.Check = func(_ context.Context, offer dhcpclient.Binding) error {
		if len(refused) == 3 {
			return nil
		}
		refused[offer.Address.Addr()] = true
		return held
	}
	for range 3 {
		var conflict *dhcpclient.ConflictError
		if _, err := client.Acquire(l.ctx()); !errors.As(err, &conflict) || !conflict.Declined || !errors.Is(err, held) {
			t.Fatalf("error %v, want a conflict", err)
		}
	}
	b, err := client.Acquire(l.ctx())
	if err != nil || len(refused) != 3 || refused[b.Address.Addr()] {
		t.Errorf("got %v, %v after %v were refused\n%s", b.Address, err, refused, l.journal())
	}
}

func TestWatchConflict(t *testing.T) {
	l := newLAN(t)
	c, other := l.child("02:00:00:00:00:11"), l.child("02:00:00:00:00:22")
	arp, foe := c.arp(), other.arp()
	for _, send := range []func() error{func() error { return foe.Probe(hostA) }, func() error { return foe.Announce(hostA) }} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		err := dhcpclient.WatchConflict(l.ctx(), arp, c.mac(), hostA)
		var conflict *dhcpclient.ConflictError
		if !errors.As(err, &conflict) || conflict.By.String() != other.mac().String() {
			t.Errorf("error %v, want a conflict with %v", err, other.mac())
		}
	}
}
