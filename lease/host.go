// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"net"
	"net/netip"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// Host is the kernel and the wire as the keeper uses them. Every method opens
// the namespace it is given and closes it before it returns; the error wraps
// provision.ErrGone when it is not there any more. Methods are safe for
// concurrent use.
type Host interface {
	// Alive reports whether the target and its namespace are still there.
	Alive(t Target, ns provision.Namespace) bool
	// Moved finds another path to a namespace whose own path is gone.
	Moved(ns provision.Namespace) (provision.Namespace, error)
	// Again opens the target's path anew: after a boot another namespace may
	// stand under the same name.
	Again(t Target, ns provision.Namespace) (provision.Namespace, error)
	// TempNamespace makes a namespace that ends with close.
	TempNamespace() (ns provision.Namespace, close func(), err error)
	// FreeName returns the first ethN that neither the namespace nor taken has.
	FreeName(ns provision.Namespace, taken func(string) bool) (string, error)

	Parent(name string) (provision.Parent, error)
	EnsureParent(name string) (p provision.Parent, made bool, err error)
	RemoveParent(name string) error

	CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (provision.Child, error)
	FindChild(ns provision.Namespace, c provision.Child) (provision.Child, error)
	// DeleteChild works without a path to the namespace too.
	DeleteChild(ns provision.Namespace, c provision.Child) error
	SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error
	Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error
	Unconfigure(ns provision.Namespace, c provision.Child) error
	HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (bool, error)
	HostHas(addr netip.Addr) (ifname string, ok bool, err error)
	Neighbour(ns provision.Namespace, c provision.Child, ip netip.Addr) (net.HardwareAddr, error)

	// Packet opens a link-layer socket on the child, UDP an ordinary one that
	// sends from source, ARP one for RFC 5227.
	Packet(ns provision.Namespace, c provision.Child, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error)
	UDP(ns provision.Namespace, c provision.Child, source netip.Addr) (dhcpclient.Conn, error)
	ARP(ns provision.Namespace, c provision.Child) (dhcpclient.ARPConn, error)
	// FromParent opens a socket that sends from the parent with a gone child's
	// MAC and leased address.
	FromParent(parent string, mac net.HardwareAddr, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error)

	ReadResolv(f provision.ResolvFile) (content []byte, existed bool, err error)
	WriteResolv(f provision.ResolvFile, content []byte) error
	RestoreResolv(f provision.ResolvFile, content []byte, existed bool) error
}
