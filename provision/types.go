// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// Namespace names a network namespace so that it can be stored and found again.
// Path alone is not enough: paths are used again, so the inode counts as well.
type Namespace struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

// Mode is a macvlan mode (linux/if_link.h, MACVLAN_MODE_*).
type Mode string

// The modes a child can run in.
const (
	Bridge  Mode = "bridge"
	Private Mode = "private"
	VEPA    Mode = "vepa"
)

// Parent is the link that children hang on, as it was when it was read.
type Parent struct {
	Name    string
	Index   int
	MAC     net.HardwareAddr
	MTU     int
	Up      bool // IFF_UP
	Carrier bool // IFF_LOWER_UP
	// Ours is set when this program made the link (its alias says so).
	Ours bool
}

// ChildSpec says what child to make.
type ChildSpec struct {
	Parent Parent
	// Name is at most 15 bytes (IFNAMSIZ - 1). Empty: eth0, or the first ethN
	// that is free.
	Name string
	MAC  net.HardwareAddr
	Mode Mode
	// Alias marks the child as ours (IFLA_IFALIAS, at most 255 bytes).
	Alias string
}

// Child is a macvlan link in a namespace. Index and MAC identify it there.
type Child struct {
	Name  string           `json:"name"`
	Index int              `json:"index"`
	MAC   net.HardwareAddr `json:"mac"`
	// NSID is the namespace's id as seen from the host (RTM_GETNSID), by which
	// events and a deletion without a path find it. -1: none.
	NSID int `json:"nsid"`
	// Parent and Mode are as CreateChild and FindChild saw them, and are not
	// stored: the parent's index in the host namespace, 0 when it is in another
	// one, and the mode, empty for one this package doesn't make.
	Parent int  `json:"-"`
	Mode   Mode `json:"-"`
}

// Forever stands for an address that never expires (INFINITY_LIFE_TIME).
const Forever = time.Duration(0xffffffff) * time.Second

// Config is all that a lease puts on a child. Apply makes the child match it.
type Config struct {
	Address netip.Prefix
	// Lifetime is both valid_lft and preferred_lft, from now, at least 1 s.
	Lifetime time.Duration
	// Router is the default route's gateway; zero: no default route.
	Router netip.Addr
	Routes []Route
	// Metric is given to every route; 0 lets the kernel's default stand, and
	// when the namespace has a default route that is not this child's, the
	// default route gets 1000 + the child's index.
	Metric int
	// MTU of the child; 0 leaves it alone.
	MTU int
	// Shared is set where somebody else configures the child too, as a container
	// engine does. Routes of theirs on the child give way to those of Routes. The
	// default route is theirs: Router is put in only where the namespace has no
	// default route, or Metric is set, or theirs leads through this child to
	// another router, which it replaces; and never with a metric of 0, so that
	// they can add one beside it.
	Shared bool
}

// Route is a destination beside the default route. A zero Via: on the link.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
}

// Errors that callers tell apart with errors.Is. Messages that wrap them name
// the object.
var (
	// ErrGone: the namespace or child is not there any more, or another one
	// stands in its place.
	ErrGone = errors.New("gone")
	// ErrBusy: the MAC or the name is in use (EADDRINUSE, EEXIST).
	ErrBusy = errors.New("in use")
	// ErrInvalid: the request can never work as it is (loopback as a parent,
	// VLAN id 4095, …).
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: the kernel lacks what is needed; the message names the
	// module.
	ErrUnsupported = errors.New("not supported by this kernel")
)

// EventKind says what happened to a link or namespace.
type EventKind int

const (
	// ParentDown: carrier or IFF_UP went.
	ParentDown EventKind = iota + 1
	// ParentUp: both are there again.
	ParentUp
	// ParentGone: the link was deleted or moved to another namespace.
	ParentGone
	// ParentChanged: its MTU or MAC changed.
	ParentChanged
	// ParentAdded: there is a link by this name now. It need not be up.
	ParentAdded
	// ParentRenamed: the link has another name now.
	ParentRenamed
	// ChildGone: a child was deleted in its namespace.
	ChildGone
	// ChildChanged: a child in another namespace is as Name and Up say, or one in
	// any namespace (Name is empty, NSID -1 for the host's) lost an address or a
	// route. It also comes of changes that
	// this program makes itself, and for any link that could be a child.
	ChildChanged
	// NamespaceGone: the kernel freed the namespace.
	NamespaceGone
	// Resync: events were lost (ENOBUFS); look at everything again.
	Resync
)

// Event is what the Watcher reports. Name and Index are the parent's, or the
// child's with the NSID of its namespace.
type Event struct {
	Kind  EventKind
	Name  string
	Index int
	NSID  int
	// OldName is set with ParentRenamed, the others with ParentChanged, and the
	// MAC with a ChildChanged that has a Name.
	OldName     string
	MTU, OldMTU int
	MAC, OldMAC net.HardwareAddr
	// Up is IFF_UP of a ChildChanged with a Name.
	Up bool
}
