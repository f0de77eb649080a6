// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LAN is one broadcast domain: a switch, which is a bridge in a namespace of its
// own. Its subnet is a /16 in 10.0.0.0/8.
type LAN struct {
	Name   string
	Subnet netip.Prefix

	lab *Lab
	sw  *NS
}

// LAN gives the LAN of that name and makes it when it is new. A new lab has one,
// which hosts and servers are on when nothing else is said: "lan".
func (l *Lab) LAN(name string) *LAN {
	l.tb.Helper()
	l.mu.Lock()
	for _, lan := range l.lans {
		if lan.Name == name {
			l.mu.Unlock()
			return lan
		}
	}
	lan := &LAN{Name: name, lab: l}
	lan.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(80 + len(l.lans)), 0, 0}), 16)
	l.lans = append(l.lans, lan)
	l.mu.Unlock()

	lan.sw = l.NS("switch-" + name)
	lan.sw.must(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		off := false
		br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	}, "make the bridge")
	return lan
}

// Addr is the n-th address of the subnet. Servers have the first.
func (n *LAN) Addr(i int) netip.Addr {
	b := n.Subnet.Addr().As4()
	b[2], b[3] = byte(i>>8), byte(i)
	return netip.AddrFrom4(b)
}

// Switch is the namespace with the bridge, br0. Its ports are p1, p2 and so on.
func (n *LAN) Switch() *NS { return n.sw }

// plug makes a cable from the switch to a new link in ns, and returns the name
// of the switch's port.
func (n *LAN) plug(ns *NS, ifname string) (port string) {
	n.lab.tb.Helper()
	port = n.lab.unique("p")
	n.must(func() error {
		return inBoth(ns, n.sw, func(nsFD, swFD int) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Namespace = ifname, netlink.NsFd(nsFD)
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: port, PeerNamespace: netlink.NsFd(swFD)})
		})
	}, "plug %s into %s", ifname, ns.Name)
	ns.SetLink(ifname, true)
	n.sw.SetLink(port, true)
	// The kernel marks a link as operational some time after it is up, up to a
	// second (net/core/link_watch.c), and the bridge drops frames until then.
	n.sw.awaitOperational(port)
	ns.awaitOperational(ifname)
	n.sw.must(func() error {
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		p, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(p, br)
	}, "connect port %s", port)
	return port
}

func (n *NS) awaitOperational(ifname string) {
	n.lab.tb.Helper()
	n.lab.Eventually(5*time.Second, n.Name+": "+ifname+" is operational", func() bool {
		var state netlink.LinkOperState
		n.must(func() error {
			link, err := netlink.LinkByName(ifname)
			if err == nil {
				state = link.Attrs().OperState
			}
			return err
		}, "look at %s", ifname)
		return state == netlink.OperUp
	})
}

func (n *LAN) must(f func() error, format string, args ...any) {
	n.lab.tb.Helper()
	n.lab.must(f(), "LAN %s: %s", n.Name, fmt.Sprintf(format, args...))
}

// inBoth gives f descriptors of both namespaces.
func inBoth(a, b *NS, f func(a, b int) error) error {
	fdA, err := unix.Open(a.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fdA)
	fdB, err := unix.Open(b.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fdB)
	return f(fdA, fdB)
}
