// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
)

// child makes a macvlan of a host's parent in a container.
func child(t *testing.T, h *Host, c *Container, mode netlink.MacvlanMode) Link {
	t.Helper()
	h.must(func() error {
		return inBoth(c.NS, h.NS, func(fd, _ int) error {
			parent, err := netlink.LinkByName(Uplink)
			if err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.ParentIndex, attrs.Namespace = "eth0", parent.Attrs().Index, netlink.NsFd(fd)
			return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: mode})
		})
	}, "make a child")
	c.SetLink("eth0", true)
	link, ok := c.Link("eth0")
	if !ok {
		t.Fatal("no child")
	}
	return link
}

// TestLAN connects two hosts' children with each other and with the server.
func TestLAN(t *testing.T) {
	l := New(t)
	s := l.Embedded(ServerOptions{Lease: 10 * time.Second, T1: 3 * time.Second})
	a, b := l.Host("a"), l.Host("b")
	wire := a.Capture(Uplink, DHCPAndARP)
	ca, cb := l.Container("ca"), l.Container("cb")
	for i, c := range []*Container{ca, cb} {
		link := child(t, []*Host{a, b}[i], c, netlink.MACVLAN_MODE_BRIDGE)
		if link.Type != "macvlan" || link.Mode != "bridge" || !link.Up || !link.Carrier {
			t.Errorf("child is %+v", link)
		}
		ack, err := c.Bare("eth0").DORA(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.AddAddr("eth0", ack.YourIPAddr.String()+"/16")
	}
	addr := func(c *Container) netip.Addr { return c.Addr("eth0").Prefix.Addr() }
	for _, to := range []netip.Addr{addr(cb), s.Addr} {
		if _, err := ca.Ping(to, 5*time.Second); err != nil {
			t.Error(err)
		}
	}
	if _, err := ca.Ping(l.LAN("lan").Addr(99), 300*time.Millisecond); err == nil {
		t.Error("an address that nobody has answers")
	}
	link, _ := ca.Link("eth0")
	discover := wire.Wait(5*time.Second, "DISCOVER", func(p Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, link.MAC) })
	if !discover.Outgoing || !discover.L2Broadcast() || !discover.L3Broadcast() || discover.SrcPort != 68 {
		t.Errorf("the DISCOVER is %v", discover)
	}
	offer := wire.Wait(5*time.Second, "OFFER", func(p Packet) bool { return p.Is(dhcpv4.MessageTypeOffer, link.MAC) })
	if offer.Outgoing || !offer.Unicast() || offer.DstIP != addr(ca) || offer.SrcIP != s.Addr {
		t.Errorf("the OFFER is %v", offer)
	}
	wire.Wait(5*time.Second, "ARP", func(p Packet) bool { return p.ARP != nil && p.ARP.Request && p.ARP.TargetIP == addr(cb) })
	if got := len(s.Leases()); got != 2 {
		t.Errorf("%d leases at the server, want 2", got)
	}
	if file, err := wire.save(); err != nil {
		t.Error(err)
	} else if info, err := os.Stat(file); err != nil || info.Size() < 1000 {
		t.Errorf("pcap file: %v, %v", info, err)
	} else if err := os.Remove(file); err != nil {
		t.Error(err)
	}
}

// TestOtherLAN keeps two LANs apart.
func TestOtherLAN(t *testing.T) {
	l := New(t)
	other := l.LAN("other")
	h := l.Host("h")
	h.Plug("up1", other)
	s := l.Embedded(ServerOptions{LAN: other})
	if _, err := h.Bare(Uplink).DORA(300 * time.Millisecond); err == nil {
		t.Error("a server on the other LAN answers")
	}
	ack, err := h.Bare("up1").DORA(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if a := addrOf(ack.YourIPAddr); !other.Subnet.Contains(a) || !other.Subnet.Contains(s.Addr) {
		t.Errorf("address %v from %v, not in %v", a, s.Addr, other.Subnet)
	}
}

// TestCarrier pulls a cable and deletes a parent with a child on it.
func TestCarrier(t *testing.T) {
	l := New(t)
	h := l.Host("h")
	c := l.Container("c")
	child(t, h, c, netlink.MACVLAN_MODE_PRIVATE)
	for _, on := range []bool{false, true} {
		h.SetCarrier(Uplink, on)
		l.Eventually(5*time.Second, "carrier follows the cable", func() bool {
			parent, _ := h.Link(Uplink)
			link, _ := c.Link("eth0")
			return parent.Up && parent.Carrier == on && link.Carrier == on
		})
	}
	h.DeleteLink(Uplink)
	l.Eventually(5*time.Second, "the child goes with its parent", func() bool { return len(c.Links()) == 0 })
}

// TestNamespaceDies has a deleted container's children go, which only happens
// when the lab holds nothing of it.
func TestNamespaceDies(t *testing.T) {
	l := New(t)
	h, c := l.Host("h"), l.Container("c")
	p := c.Sleep()
	h.Plug("up1", l.LAN("lan"))
	mac := child(t, h, c, netlink.MACVLAN_MODE_BRIDGE).MAC
	c.Delete()
	p.Kill9()
	watcher := l.Container("watcher")
	// The MAC can be used again once the old child is gone.
	l.Eventually(10*time.Second, "the MAC is free", func() bool {
		return h.Do(func() error {
			return inBoth(watcher.NS, h.NS, func(fd, _ int) error {
				parent, err := netlink.LinkByName(Uplink)
				if err != nil {
					return err
				}
				attrs := netlink.NewLinkAttrs()
				attrs.Name, attrs.ParentIndex, attrs.Namespace = "eth0", parent.Attrs().Index, netlink.NsFd(fd)
				attrs.HardwareAddr = mac
				if err := netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
					return err
				}
				err = watcher.Do(func() error {
					link, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					if err := netlink.LinkSetUp(link); err != nil {
						return errors.Join(err, netlink.LinkDel(link))
					}
					return nil
				})
				return err
			})
		}) == nil
	})
}

// TestRoot gives a container's process files of its own.
func TestRoot(t *testing.T) {
	l := New(t)
	p, root := l.Container("c").SleepInRoot(map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\n"})
	l.Eventually(5*time.Second, "the process sees its own files", func() bool {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "root/etc/resolv.conf"))
		return string(text) == "nameserver 192.0.2.1\n"
	})
	if text, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf")); err != nil || string(text) != "nameserver 192.0.2.1\n" {
		t.Errorf("%q, %v", text, err)
	}
	if p.Threads() != 1 || len(p.Descriptors()) < 3 || p.MemoryBytes() == 0 {
		t.Errorf("%d threads, descriptors %v, %d bytes", p.Threads(), p.Descriptors(), p.MemoryBytes())
	}
}
