// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// State is where a lease stands: RFC 2131's client states (4.4, figure 5) and
// the three that a keeper adds at both ends of a lease's life.
type State string

// The states.
const (
	Init       State = "init"
	Selecting  State = "selecting"
	Requesting State = "requesting"
	InitReboot State = "init-reboot"
	Rebooting  State = "rebooting"
	Bound      State = "bound"
	Renewing   State = "renewing"
	Rebinding  State = "rebinding"
	// Releasing: the DHCPRELEASE is owed, the child may be gone already.
	Releasing State = "releasing"
	// Kept: there is no child, the address is held until the lease expires for
	// the next attach of the identity, or for the next start of its container.
	Kept State = "kept"
	// Ended: the lease is over; the record is history.
	Ended State = "ended"
)

// HasAddress reports whether a lease in this state has a valid binding.
func (s State) HasAddress() bool {
	switch s {
	case Bound, Renewing, Rebinding, InitReboot, Rebooting:
		return true
	}
	return false
}

// TargetKind says what a target is.
type TargetKind string

// The kinds of targets.
const (
	TargetNetNS  TargetKind = "netns"
	TargetPID    TargetKind = "pid"
	TargetDocker TargetKind = "docker"
	// TargetHost is the host's own namespace: a host link.
	TargetHost TargetKind = "host"
)

// Target is what a child is attached to.
type Target struct {
	Kind TargetKind `json:"kind"`
	// Name is how people call it: "netns:web", "pid:812", "docker:web".
	Name string `json:"name"`
	// PID and PIDStart identify the process of a pid target (proc(5), field 22
	// of stat: start time in clock ticks after boot).
	PID      int    `json:"pid,omitempty"`
	PIDStart uint64 `json:"pid_start,omitempty"`
	// ContainerID and DockerHost are set for a docker target.
	ContainerID string `json:"container_id,omitempty"`
	DockerHost  string `json:"docker_host,omitempty"`
}

// Spec is what was asked for, with every default filled in.
type Spec struct {
	Identity    string           `json:"identity"`
	Parent      string           `json:"parent"`
	Ifname      string           `json:"ifname"`
	Mode        provision.Mode   `json:"mode"`
	MAC         net.HardwareAddr `json:"mac"`
	ClientID    []byte           `json:"client_id,omitempty"`
	Hostname    string           `json:"hostname,omitempty"`
	VendorClass string           `json:"vendor_class,omitempty"`
	UserClass   string           `json:"user_class,omitempty"`
	// RequestIP is demanded: no other address will do.
	RequestIP netip.Addr `json:"request_ip,omitzero"`
	// Static is an address that was given: no server is asked for one.
	Static   netip.Addr               `json:"static,omitzero"`
	Metric   int                      `json:"metric,omitempty"`
	Routes   RoutePolicy              `json:"routes"`
	DNS      bool                     `json:"dns,omitempty"`
	MTU      int                      `json:"mtu,omitempty"`
	Conflict dhcpclient.ConflictCheck `json:"conflict"`
	Allow    []netip.Addr             `json:"allow,omitempty"`
	Deny     []netip.Addr             `json:"deny,omitempty"`
}

// RoutePolicy says which of a lease's routes are put in.
type RoutePolicy string

// The policies.
const (
	RoutesAll     RoutePolicy = "all"
	RoutesDefault RoutePolicy = "default"
	RoutesNone    RoutePolicy = "none"
)

// Moment is a point in time that outlives a restart: exact within one boot by
// the clock that counts suspend, by wall time across boots.
type Moment struct {
	BootID string        `json:"boot_id"`
	Boot   time.Duration `json:"boot"` // CLOCK_BOOTTIME
	Wall   time.Time     `json:"wall"`
}

// recordVersion is the version this program writes. It reads this one and
// refuses later ones.
const recordVersion = 1

// Record is one lease: all that is stored of it. It is a value; what its
// slices and pointers lead to is never written to after it is shared.
type Record struct {
	Version int                 `json:"version"`
	ID      string              `json:"id"`
	Spec    Spec                `json:"spec"`
	Target  Target              `json:"target"`
	NS      provision.Namespace `json:"ns"`
	Child   provision.Child     `json:"child"`
	State   State               `json:"state"`
	// Established is set once the lease was bound: before that the record is
	// the intent of an attach, and a keeper that finds it at its start undoes it.
	Established bool `json:"established,omitempty"`
	// BootID is the boot the child was made in, ParentIndex its parent then.
	BootID      string `json:"boot_id,omitempty"`
	ParentIndex int    `json:"parent_index,omitempty"`
	// ParentLink is the parent's name where that isn't the one in Spec, OurParent
	// is set when it was a link that this program had made.
	ParentLink string `json:"parent_link,omitempty"`
	OurParent  bool   `json:"our_parent,omitempty"`
	// MadeParent is set when the parent was made for this lease or one before
	// it, so that the last user takes it away.
	MadeParent bool `json:"made_parent,omitempty"`
	// Offered is the offer under request: what to give back when the program
	// dies between REQUEST and ACK.
	Offered *dhcpclient.Binding `json:"offered,omitempty"`
	Binding *dhcpclient.Binding `json:"binding,omitempty"`
	// BoundAt is when the REQUEST of the binding was sent.
	BoundAt   Moment    `json:"bound_at,omitzero"`
	Renewals  int       `json:"renewals,omitempty"`
	LastError string    `json:"last_error,omitempty"`
	Created   time.Time `json:"created"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	EndReason string    `json:"end_reason,omitempty"`
	// Pool is set on leases taken for an address pool.
	Pool *Pool `json:"pool,omitempty"`
	// Waiting is set on a kept lease whose container has stopped: it is attached
	// again when the container starts, however long that takes.
	Waiting bool `json:"waiting,omitempty"`
	// Former is the kept record that an attach under way goes on from: what is
	// there again once the attach is undone, by whichever keeper.
	Former *Record `json:"former,omitempty"`
	// Resolv is where DNS was written to, and what stood there before.
	Resolv *SavedResolv `json:"resolv,omitempty"`
}

// SavedResolv is a resolv.conf as it was before this program wrote to it.
type SavedResolv struct {
	File    provision.ResolvFile `json:"file"`
	Content []byte               `json:"content,omitempty"`
	Existed bool                 `json:"existed"`
	// Saved is set once Content and Existed are known.
	Saved bool `json:"saved"`
}

// Encode returns the record as it is stored.
func (r Record) Encode() ([]byte, error) {
	r.Version = recordVersion
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("lease %s: failed to encode its record: %w", r.ID, err)
	}
	return b, nil
}

// DecodeRecord reads a stored record and checks that a keeper can work with it.
func DecodeRecord(b []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("not a lease record: %w", err)
	}
	if r.Version < 1 || r.Version > recordVersion {
		return r, fmt.Errorf("lease record of version %d: this program reads up to %d", r.Version, recordVersion)
	}
	return r, r.check()
}

// check refuses what a damaged or foreign record could make the keeper do.
func (r *Record) check() error {
	switch {
	case r.ID == "":
		return errors.New("lease record without an id")
	case len(r.Spec.MAC) != 6:
		return fmt.Errorf("lease %s: MAC of %d bytes", r.ID, len(r.Spec.MAC))
	case r.Spec.Parent == "" || len(r.Spec.Parent) > 15:
		return fmt.Errorf("lease %s: parent %q", r.ID, r.Spec.Parent)
	case r.Spec.Ifname == "" || len(r.Spec.Ifname) > 15:
		return fmt.Errorf("lease %s: interface %q", r.ID, r.Spec.Ifname)
	}
	switch r.State {
	case Init, Selecting, Requesting, InitReboot, Rebooting, Bound, Renewing, Rebinding, Releasing, Kept, Ended:
	default:
		return fmt.Errorf("lease %s: state %q", r.ID, r.State)
	}
	for _, b := range []*dhcpclient.Binding{r.Binding, r.Offered} {
		switch {
		case b == nil:
		case !b.Address.IsValid() || !b.Address.Addr().Is4() || b.Lease <= 0:
			return fmt.Errorf("lease %s: binding of %v for %v", r.ID, b.Address, b.Lease)
		case b.Lease != dhcpclient.Infinite && (b.T1 <= 0 || b.T1 >= b.T2 || b.T2 >= b.Lease):
			return fmt.Errorf("lease %s: T1 %v, T2 %v, lease %v", r.ID, b.T1, b.T2, b.Lease)
		}
	}
	if r.Former != nil {
		if err := r.Former.check(); err != nil {
			return err
		}
	}
	if r.Binding == nil && (r.State.HasAddress() || r.State == Kept && !r.Waiting) {
		return fmt.Errorf("lease %s: %s without a binding", r.ID, r.State)
	}
	return nil
}
