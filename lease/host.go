// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"net"
	"net/netip"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// Host is the kernel and the wire as the keeper uses them. Every method but
// Enter opens the namespace it is given and closes it before it returns; the error wraps
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
	// Enter returns a Host for several calls in a row: it keeps ns open until
	// leave is called, and is not used after that.
	Enter(ns provision.Namespace) (in Host, leave func(), err error)
	// FreeName returns the first ethN that neither the namespace nor taken has.
	FreeName(ns provision.Namespace, taken func(string) bool) (string, error)

	Parent(name string) (provision.Parent, error)
	// ParentAt finds the parent with this index, whatever its name is by now.
	ParentAt(index int) (provision.Parent, error)
	EnsureParent(name string) (p provision.Parent, made bool, err error)
	RemoveParent(name string) error

	CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (provision.Child, error)
	FindChild(ns provision.Namespace, c provision.Child) (provision.Child, error)
	// DeleteChild works without a path to the namespace too.
	DeleteChild(ns provision.Namespace, c provision.Child) error
	// Park moves the child, down, to the host's own namespace, which it returns;
	// CreateParked makes one there. DeleteParked deletes the child of that name
	// there if a keeper made it.
	Park(ns provision.Namespace, c provision.Child, mtu int) (provision.Namespace, provision.Child, error)
	CreateParked(spec provision.ChildSpec, mtu int) (provision.Namespace, provision.Child, error)
	DeleteParked(name string) error
	SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error
	Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error
	Unconfigure(ns provision.Namespace, c provision.Child) error
	// Repair puts back what Apply had put on the child, and says what was missing.
	Repair(ns provision.Namespace, c provision.Child, cfg provision.Config) (repaired []string, err error)
	// FollowMTU raises the child's MTU to its parent's, or most if that is less
	// and not 0, where it is still was.
	FollowMTU(ns provision.Namespace, c provision.Child, was, most int) error
	// TakeDefault makes somebody else's default route through via, if the child
	// has it, one that Apply looks after.
	TakeDefault(ns provision.Namespace, c provision.Child, via, source netip.Addr) (bool, error)
	HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (bool, error)
	HostHas(addr netip.Addr) (ifname string, ok bool, err error)
	Neighbour(ns provision.Namespace, c provision.Child, ip netip.Addr) (net.HardwareAddr, error)

	// Packet opens a link-layer socket on the child, UDP an ordinary one that
	// sends from source, ARP one for RFC 5227.
	Packet(ns provision.Namespace, c provision.Child, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error)
	UDP(ns provision.Namespace, c provision.Child, source netip.Addr) (dhcpclient.Conn, error)
	ARP(ns provision.Namespace, c provision.Child) (dhcpclient.ARPConn, error)
	// ParentARP is ARP on the parent itself, which hears no child of its own.
	ParentARP(parent string) (dhcpclient.ARPConn, net.HardwareAddr, error)
	// FromParent opens a socket that sends from the parent with a gone child's
	// MAC and leased address.
	FromParent(parent string, mac net.HardwareAddr, source netip.Addr, nextHop net.HardwareAddr) (dhcpclient.Conn, error)
	// Claims opens a socket that hears what hosts beyond the parent broadcast
	// by ARP. It ends with the parent and does not hold it.
	Claims(p provision.Parent) (dhcpclient.ClaimConn, error)

	ReadResolv(f provision.ResolvFile) (content []byte, existed bool, err error)
	WriteResolv(f provision.ResolvFile, content []byte) error
	RestoreResolv(f provision.ResolvFile, content []byte, existed bool) error
}
