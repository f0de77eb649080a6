// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"mvdhcp/dhcpclient"
	"mvdhcp/dhcpclient/wire"
	"mvdhcp/provision"
)

// KernelHost is the Host of a real machine.
type KernelHost struct {
	*provision.Kernel
	entered *provision.NS // by Enter; nil: none
}

var _ Host = KernelHost{}

// Alive reports whether the path still leads to the namespace and, for a
// process, whether it is the one that was attached.
func (KernelHost) Alive(t Target, ns provision.Namespace) bool {
	if t.Kind == TargetPID && t.PIDStart != 0 {
		if start, err := provision.ProcessStart(t.PID); err != nil || start != t.PIDStart {
			return false
		}
	}
	return ns.Alive()
}

// Moved looks for another path to the namespace.
func (KernelHost) Moved(ns provision.Namespace) (provision.Namespace, error) {
	return provision.FindNamespace(ns.Dev, ns.Ino)
}

// Again opens the path of a named namespace anew. The host's own is always
// there.
func (KernelHost) Again(t Target, ns provision.Namespace) (provision.Namespace, error) {
	if t.Kind == TargetHost {
		return provision.Host()
	}
	if t.Kind != TargetNetNS {
		return ns, fmt.Errorf("%s: %w", t.Name, provision.ErrGone)
	}
	n, err := provision.Open(ns.Path)
	if err != nil {
		return ns, err
	}
	defer n.Close()
	return n.ID(), nil
}

// TempNamespace makes an anonymous namespace, reached through this process.
func (KernelHost) TempNamespace() (provision.Namespace, func(), error) {
	n, err := provision.NewNamespace()
	if err != nil {
		return provision.Namespace{}, nil, err
	}
	id := n.ID()
	id.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.FD())
	return id, n.Close, nil
}

// Enter opens the namespace for several calls.
func (h KernelHost) Enter(ns provision.Namespace) (Host, func(), error) {
	n, err := ns.Open()
	if err != nil {
		return nil, nil, err
	}
	if err := n.Stay(); err != nil {
		n.Close()
		return nil, nil, err
	}
	h.entered = n
	return h, n.Close, nil
}

// FreeName tries eth0, eth1, ….
func (h KernelHost) FreeName(ns provision.Namespace, taken func(string) bool) (name string, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		name, err = h.Kernel.FreeName(n, taken)
		return err
	})
	return name, err
}

// CreateChild makes the child in the namespace.
func (h KernelHost) CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (c provision.Child, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		c, err = h.Kernel.CreateChild(ctx, n, spec)
		return err
	})
	return c, err
}

// FindChild looks the child up.
func (h KernelHost) FindChild(ns provision.Namespace, c provision.Child) (f provision.Child, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		f, err = h.Kernel.FindChild(n, c)
		return err
	})
	return f, err
}

// DeleteChild deletes by path or, where that is gone, by namespace id. One that
// was never made has no index: there is nothing to delete.
func (h KernelHost) DeleteChild(ns provision.Namespace, c provision.Child) error {
	if c.Index <= 0 {
		return nil
	}
	if own := h.Host().ID(); own.Dev == ns.Dev && own.Ino == ns.Ino {
		return h.Kernel.DeleteChild(h.Host(), c)
	}
	n, err := ns.Open()
	if err != nil {
		if c.NSID < 0 {
			return err
		}
		return h.DeleteChildNSID(c)
	}
	defer n.Close()
	return h.Kernel.DeleteChild(n, c)
}

// Park moves the child to the host's namespace.
func (h KernelHost) Park(ns provision.Namespace, c provision.Child, mtu int) (_ provision.Namespace, p provision.Child, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		p, err = h.Kernel.Park(n, c, mtu)
		return err
	})
	return h.Host().ID(), p, err
}

// CreateParked makes a child in the host's namespace.
func (h KernelHost) CreateParked(spec provision.ChildSpec, mtu int) (provision.Namespace, provision.Child, error) {
	c, err := h.Kernel.CreateParked(spec, mtu)
	return h.Host().ID(), c, err
}

// DeleteParked deletes a child in the host's namespace.
func (h KernelHost) DeleteParked(name string) error { return h.Kernel.DeleteParked(name, AliasPrefix) }

// SetMode changes the child's mode.
func (h KernelHost) SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error {
	return h.in(ns, func(n *provision.NS) error { return h.Kernel.SetMode(n, c, m) })
}

// Apply configures the child.
func (h KernelHost) Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error {
	return h.in(ns, func(n *provision.NS) error { return h.Kernel.Apply(n, c, cfg) })
}

// Unconfigure takes address and routes off the child.
func (h KernelHost) Unconfigure(ns provision.Namespace, c provision.Child) error {
	return h.in(ns, func(n *provision.NS) error { return h.Kernel.Unconfigure(n, c) })
}

// Repair puts back what Apply had put on the child.
func (h KernelHost) Repair(ns provision.Namespace, c provision.Child, cfg provision.Config) (repaired []string, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		repaired, err = h.Kernel.Repair(n, c, cfg)
		return err
	})
	return repaired, err
}

// FollowMTU raises the child's MTU with its parent's.
func (h KernelHost) FollowMTU(ns provision.Namespace, c provision.Child, was, most int) error {
	return h.in(ns, func(n *provision.NS) error { return h.Kernel.FollowMTU(n, c, was, most) })
}

// TakeDefault takes a default route over.
func (h KernelHost) TakeDefault(ns provision.Namespace, c provision.Child, via, source netip.Addr) (taken bool, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		taken, err = h.Kernel.TakeDefault(n, c, via, source)
		return err
	})
	return taken, err
}

// HasAddress reports whether the child carries the address.
func (h KernelHost) HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (ok bool, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		ok, err = h.Kernel.HasAddress(n, c, p)
		return err
	})
	return ok, err
}

// Neighbour is the MAC of the next hop toward ip.
func (h KernelHost) Neighbour(ns provision.Namespace, c provision.Child, ip netip.Addr) (mac net.HardwareAddr, err error) {
	err = h.in(ns, func(n *provision.NS) (err error) {
		mac, err = h.Kernel.Neighbour(n, c, ip)
		return err
	})
	return mac, err
}

// Packet opens a link-layer socket on the child.
func (h KernelHost) Packet(ns provision.Namespace, c provision.Child, source netip.Addr, nextHop net.HardwareAddr) (conn dhcpclient.Conn, err error) {
	err = h.inside(ns, func() (err error) {
		conn, err = wire.ListenPacket(c.Index, wire.PacketOptions{MAC: c.MAC, Source: source, NextHop: nextHop})
		return err
	})
	return conn, err
}

// UDP opens a UDP socket on the child.
func (h KernelHost) UDP(ns provision.Namespace, c provision.Child, source netip.Addr) (conn dhcpclient.Conn, err error) {
	err = h.inside(ns, func() (err error) {
		conn, err = wire.ListenUDP(c.Name, source)
		return err
	})
	return conn, err
}

// ARP opens an ARP socket on the child.
func (h KernelHost) ARP(ns provision.Namespace, c provision.Child) (conn dhcpclient.ARPConn, err error) {
	err = h.inside(ns, func() (err error) {
		conn, err = wire.ListenARP(c.Index, c.MAC)
		return err
	})
	return conn, err
}

// ParentARP opens an ARP socket on the parent.
func (h KernelHost) ParentARP(parent string) (conn dhcpclient.ARPConn, mac net.HardwareAddr, err error) {
	p, err := h.Parent(parent)
	if err != nil {
		return nil, nil, err
	}
	err = h.Kernel.Host().Do(func() (err error) {
		conn, err = wire.ListenARP(p.Index, p.MAC)
		return err
	})
	return conn, p.MAC, err
}

// FromParent opens a socket on the parent that sends as a gone child.
func (h KernelHost) FromParent(parent string, mac net.HardwareAddr, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error) {
	p, err := h.Parent(parent)
	if err != nil {
		return nil, err
	}
	return wire.ListenPacket(p.Index, wire.PacketOptions{MAC: mac, Source: source, NextHop: nextHop, SendOnly: true})
}

// Claims opens a socket on the parent that hears the ARP broadcasts of the wire.
func (KernelHost) Claims(p provision.Parent) (dhcpclient.ClaimConn, error) {
	return wire.ListenClaims(p.Index)
}

// ReadResolv reads a resolv.conf.
func (KernelHost) ReadResolv(f provision.ResolvFile) ([]byte, bool, error) {
	return provision.ReadResolv(f)
}

// WriteResolv writes a resolv.conf in place.
func (KernelHost) WriteResolv(f provision.ResolvFile, content []byte) error {
	return provision.WriteResolv(f, content)
}

// RestoreResolv puts a resolv.conf back.
func (KernelHost) RestoreResolv(f provision.ResolvFile, content []byte, existed bool) error {
	return provision.RestoreResolv(f, content, existed)
}

// in runs f with the namespace open.
func (h KernelHost) in(ns provision.Namespace, f func(*provision.NS) error) error {
	if n := h.entered; n != nil && n.ID().Dev == ns.Dev && n.ID().Ino == ns.Ino {
		return f(n)
	}
	n, err := ns.Open()
	if err != nil {
		return err
	}
	defer n.Close()
	return f(n)
}

// inside runs f on a thread in the namespace.
func (h KernelHost) inside(ns provision.Namespace, f func() error) error {
	return h.in(ns, func(n *provision.NS) error { return n.Do(f) })
}
