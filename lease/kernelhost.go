// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
	"mvdhcp/dhcpclient/wire"
	"mvdhcp/provision"
)

// KernelHost is the Host of a real machine.
type KernelHost struct{ *provision.Kernel }

var _ Host = KernelHost{}

// Alive reports whether the path still leads to the namespace and, for a
// process, whether it is the one that was attached.
func (KernelHost) Alive(t Target, ns provision.Namespace) bool {
	if t.Kind == TargetPID && t.PIDStart != 0 {
		if start, err := ProcessStart(t.PID); err != nil || start != t.PIDStart {
			return false
		}
	}
	return ns.Alive()
}

// Moved looks for another path to the namespace.
func (KernelHost) Moved(ns provision.Namespace) (provision.Namespace, error) {
	return provision.FindNamespace(ns.Dev, ns.Ino)
}

// Again opens the path of a named namespace anew.
func (KernelHost) Again(t Target, ns provision.Namespace) (provision.Namespace, error) {
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

// FreeName tries eth0, eth1, ….
func (KernelHost) FreeName(ns provision.Namespace, taken func(string) bool) (name string, err error) {
	err = in(ns, func(n *provision.NS) error {
		return n.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("failed to open a socket in %s: %w", ns.Path, err)
			}
			defer unix.Close(fd)
			for i := range 1000 {
				name = "eth" + strconv.Itoa(i)
				if taken(name) {
					continue
				}
				req, err := unix.NewIfreq(name)
				if err != nil {
					return err
				}
				if unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req) != nil {
					return nil
				}
			}
			return fmt.Errorf("namespace %s has 1000 interfaces ethN: %w", ns.Path, provision.ErrBusy)
		})
	})
	return name, err
}

// CreateChild makes the child in the namespace.
func (h KernelHost) CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (c provision.Child, err error) {
	err = in(ns, func(n *provision.NS) (err error) {
		c, err = h.Kernel.CreateChild(ctx, n, spec)
		return err
	})
	return c, err
}

// FindChild looks the child up.
func (h KernelHost) FindChild(ns provision.Namespace, c provision.Child) (f provision.Child, err error) {
	err = in(ns, func(n *provision.NS) (err error) {
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

// SetMode changes the child's mode.
func (h KernelHost) SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error {
	return in(ns, func(n *provision.NS) error { return h.Kernel.SetMode(n, c, m) })
}

// Apply configures the child.
func (h KernelHost) Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error {
	return in(ns, func(n *provision.NS) error { return h.Kernel.Apply(n, c, cfg) })
}

// Unconfigure takes address and routes off the child.
func (h KernelHost) Unconfigure(ns provision.Namespace, c provision.Child) error {
	return in(ns, func(n *provision.NS) error { return h.Kernel.Unconfigure(n, c) })
}

// HasAddress reports whether the child carries the address.
func (h KernelHost) HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (ok bool, err error) {
	err = in(ns, func(n *provision.NS) (err error) {
		ok, err = h.Kernel.HasAddress(n, c, p)
		return err
	})
	return ok, err
}

// Neighbour is the MAC of the next hop toward ip.
func (h KernelHost) Neighbour(ns provision.Namespace, c provision.Child, ip netip.Addr) (mac net.HardwareAddr, err error) {
	err = in(ns, func(n *provision.NS) (err error) {
		mac, err = h.Kernel.Neighbour(n, c, ip)
		return err
	})
	return mac, err
}

// Packet opens a link-layer socket on the child.
func (KernelHost) Packet(ns provision.Namespace, c provision.Child, source netip.Addr, nextHop net.HardwareAddr) (conn dhcpclient.Conn, err error) {
	err = inside(ns, func() (err error) {
		conn, err = wire.ListenPacket(c.Index, wire.PacketOptions{MAC: c.MAC, Source: source, NextHop: nextHop})
		return err
	})
	return conn, err
}

// UDP opens a UDP socket on the child.
func (KernelHost) UDP(ns provision.Namespace, c provision.Child, source netip.Addr) (conn dhcpclient.Conn, err error) {
	err = inside(ns, func() (err error) {
		conn, err = wire.ListenUDP(c.Name, source)
		return err
	})
	return conn, err
}

// ARP opens an ARP socket on the child.
func (KernelHost) ARP(ns provision.Namespace, c provision.Child) (conn dhcpclient.ARPConn, err error) {
	err = inside(ns, func() (err error) {
		conn, err = wire.ListenARP(c.Index, c.MAC)
		return err
	})
	return conn, err
}

// FromParent opens a socket on the parent that sends as a gone child.
func (h KernelHost) FromParent(parent string, mac net.HardwareAddr, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error) {
	p, err := h.Parent(parent)
	if err != nil {
		return nil, err
	}
	return wire.ListenPacket(p.Index, wire.PacketOptions{MAC: mac, Source: source, NextHop: nextHop, SendOnly: true})
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

// ProcessStart is when a process was started, in clock ticks after boot
// (proc(5), /proc/PID/stat, field 22).
func ProcessStart(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command name, field 2, may hold spaces and parentheses.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, fmt.Errorf("process %d has exited", pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// in runs f with the namespace open.
func in(ns provision.Namespace, f func(*provision.NS) error) error {
	n, err := ns.Open()
	if err != nil {
		return err
	}
	defer n.Close()
	return f(n)
}

// inside runs f on a thread in the namespace.
func inside(ns provision.Namespace, f func() error) error {
	return in(ns, func(n *provision.NS) error { return n.Do(f) })
}
