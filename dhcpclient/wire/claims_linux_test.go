// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
)

// listen opens a listener on the parent and returns what it hears, and how it
// ends.
func (l *lan) listen() (c *ClaimConn, heard <-chan dhcpclient.Claim, ended <-chan error) {
	l.t.Helper()
	in(l.t, l.host, func() (err error) {
		c, err = ListenClaims(l.parent.Attrs().Index)
		return err
	})
	claims, end := make(chan dhcpclient.Claim, 100_000), make(chan error, 1)
	go func() { end <- c.Listen(func(c dhcpclient.Claim) { claims <- c }) }()
	l.t.Cleanup(func() { c.Close() })
	return c, claims, end
}

func claim(mac net.HardwareAddr, addr netip.Addr) dhcpclient.Claim {
	return dhcpclient.Claim{MAC: [6]byte(mac), Addr: addr}
}

// On the parent the wire's broadcasts are heard, the children's among
// themselves and to the wire are not. A frame from outside that has a child's
// own address is heard: another host has it too.
func TestClaims(t *testing.T) {
	l := newLAN(t)
	a, b := l.child("02:00:00:00:00:11"), l.child("02:00:00:00:00:12")
	c, heard, ended := l.listen()
	out := l.sender()
	if err := a.arp().Announce(hostA); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		frame []byte
		dst   net.HardwareAddr
	}{
		{appendARP(nil, macB, netip.IPv4Unspecified(), hostA), broadcastMAC}, // a probe
		{appendARP(nil, macB, hostB, hostA), a.mac()},                        // to the child alone
		{ack(a.mac()), broadcastMAC},
		{appendARP(nil, macB, hostB, hostA), broadcastMAC},
		{appendARP(nil, a.mac(), hostA, hostA), broadcastMAC},
	} {
		copy(f.frame, f.dst)
		protocol := uint16(unix.ETH_P_ARP)
		if len(f.frame) > 100 {
			protocol = unix.ETH_P_IP
		}
		if err := out.write(f.frame, protocol, f.dst); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.arp().Announce(hostA); err != nil {
		t.Fatal(err)
	}
	last := netip.MustParseAddr("10.77.0.99")
	if err := out.write(appendARP(nil, macB, last, last), unix.ETH_P_ARP, broadcastMAC); err != nil {
		t.Fatal(err)
	}
	var got []dhcpclient.Claim
	for len(got) == 0 || got[len(got)-1].Addr != last {
		select {
		case c := <-heard:
			got = append(got, c)
		case err := <-ended:
			t.Fatalf("ended after %v: %v", got, err)
		case <-l.ctx().Done():
			t.Fatalf("heard no more than %v", got)
		}
	}
	if diff := cmp.Diff([]dhcpclient.Claim{claim(macB, hostB), claim(a.mac(), hostA), claim(macB, last)}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// A child's answer to another child in the parent's own namespace is heard at the
// parent, and is no broadcast of the wire.
func TestClaimOfAChildToTheHost(t *testing.T) {
	l := newLAN(t)
	a := l.child("02:00:00:00:00:11")
	hw, err := net.ParseMAC("02:00:00:00:00:12")
	if err != nil {
		t.Fatal(err)
	}
	in(t, l.host, func() error {
		return netlink.LinkAdd(&netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{Name: "link0", ParentIndex: l.parent.Attrs().Index, HardwareAddr: hw},
			Mode:      netlink.MACVLAN_MODE_BRIDGE,
		})
	})
	l.up(l.host, "link0", netip.Prefix{})
	_, heard, ended := l.listen()
	var out *linkConn
	in(t, a.ns, func() error {
		s, err := openLink(a.Attrs().Index, 0, nil, "sender")
		out = &linkConn{socket: s, ifindex: a.Attrs().Index}
		return err
	})
	defer out.Close()
	frame := appendARP(nil, a.mac(), hostA, hostB)
	copy(frame, hw)
	if err := out.write(frame, unix.ETH_P_ARP, hw); err != nil {
		t.Fatal(err)
	}
	want := claim(a.mac(), hostA)
	want.Direct = true
	select {
	case got := <-heard:
		if got != want {
			t.Errorf("heard %v, want %v", got, want)
		}
	case err := <-ended:
		t.Fatalf("ended: %v", err)
	case <-l.ctx().Done():
		t.Fatal("heard nothing")
	}
}

// A flood does not keep the process busy.
func TestClaimFlood(t *testing.T) {
	l := newLAN(t)
	var c *ClaimConn
	in(t, l.host, func() (err error) {
		c, err = ListenClaims(l.parent.Attrs().Index)
		return err
	})
	defer c.Close()
	const rate = 50
	c.rate, c.period = rate, time.Hour
	heard, ended := make(chan dhcpclient.Claim, 10*rate), make(chan error, 1)
	go func() { ended <- c.Listen(func(c dhcpclient.Claim) { heard <- c }) }()
	out := l.sender()
	for range 4 * rate {
		if err := out.write(appendARP(nil, macB, hostB, hostB), unix.ETH_P_ARP, broadcastMAC); err != nil {
			t.Fatal(err)
		}
	}
	l.await("the first of the flood", func() bool { return len(heard) == rate })
	passed(t, c.socket)
	c.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) || len(heard) != rate {
		t.Errorf("heard %d, want %d; ended with %v", len(heard), rate, err)
	}
}

func TestClaimsAllocateNothing(t *testing.T) {
	frame := appendARP(nil, macB, hostB, hostB)
	if n := testing.AllocsPerRun(100, func() { parseClaim(frame) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// The listener ends with its link and does not hold it.
func TestClaimsEndWithTheLink(t *testing.T) {
	for name, end := range map[string]func(netlink.Link) error{"down": netlink.LinkSetDown, "deleted": netlink.LinkDel} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			_, _, ended := l.listen()
			in(t, l.host, func() error { return end(l.parent) })
			select {
			case err := <-ended:
				if !errors.Is(err, unix.ENETDOWN) {
					t.Errorf("ended with %v", err)
				}
			case <-l.ctx().Done():
				t.Error("it goes on")
			}
		})
	}
}
