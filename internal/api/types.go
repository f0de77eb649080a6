// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"
)

// Lease is the JSON contract of attach, leases, renew and release.
type Lease struct {
	ID           string   `json:"id"`
	Identity     string   `json:"identity"`
	State        string   `json:"state"` // RFC 2131's name in lower case, or "ended"
	Target       string   `json:"target"`
	Network      string   `json:"network,omitempty"` // the engine's, of a lease of its IPAM plugin
	NetNS        string   `json:"netns"`
	Ifname       string   `json:"ifname"`
	Parent       string   `json:"parent"`
	Mode         string   `json:"mode"`
	MAC          string   `json:"mac"`
	ClientID     string   `json:"client_id"` // hex, type byte first
	Hostname     string   `json:"hostname"`
	Address      string   `json:"address"` // "10.0.0.5/24", "" while there is none
	Gateway      string   `json:"gateway"`
	Routes       []Route  `json:"routes"`
	DNS          []string `json:"dns"`
	Domain       string   `json:"domain"`
	Search       []string `json:"search"`
	NTP          []string `json:"ntp"`
	MTU          int      `json:"mtu"`
	Server       string   `json:"server"`
	LeaseSeconds int64    `json:"lease_seconds"` // 4294967295: infinite
	// The times are null while there is no address; a lease for ever has only the
	// first of them.
	BoundAt   Time   `json:"bound_at"`
	RenewAt   Time   `json:"renew_at"`
	RebindAt  Time   `json:"rebind_at"`
	ExpiresAt Time   `json:"expires_at"`
	Renewals  int    `json:"renewals"`
	LastError string `json:"last_error"`
	// Waiting is set on a kept lease whose container has stopped: it is attached
	// again when the container starts.
	Waiting bool `json:"waiting,omitempty"`
	// EndedAt and EndReason are set on ended leases (leases --all).
	EndedAt   time.Time `json:"ended_at,omitzero"`
	EndReason string    `json:"end_reason,omitempty"`
	// ParentState is "up", "down" or "missing".
	ParentState string `json:"parent_state,omitempty"`
}

// Time is a time.Time that is null in JSON where it is zero.
type Time struct{ time.Time }

// Route is one route of a lease; an empty Via is a destination on the link.
type Route struct {
	Dst string `json:"dst"`
	Via string `json:"via"`
}

// AttachRequest carries the flags of mvdhcp attach, as the user typed them.
// Empty values take the defaults of the command line.
type AttachRequest struct {
	Target        string        `json:"target"`
	Parent        string        `json:"parent"`
	Ifname        string        `json:"ifname,omitempty"`
	Mode          string        `json:"mode,omitempty"`
	Identity      string        `json:"identity,omitempty"`
	MAC           string        `json:"mac,omitempty"`
	ClientID      string        `json:"client_id,omitempty"`
	Hostname      string        `json:"hostname,omitempty"`
	NoHostname    bool          `json:"no_hostname,omitempty"`
	RequestIP     string        `json:"request_ip,omitempty"`
	VendorClass   string        `json:"vendor_class,omitempty"`
	UserClass     string        `json:"user_class,omitempty"`
	Metric        int           `json:"metric,omitempty"`
	Routes        string        `json:"routes,omitempty"`
	DNS           bool          `json:"dns,omitempty"`
	MTU           int           `json:"mtu,omitempty"`
	ConflictCheck string        `json:"conflict_check,omitempty"`
	AllowServers  []string      `json:"allow_servers,omitempty"`
	DenyServers   []string      `json:"deny_servers,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	// DockerHost is the caller's DOCKER_HOST, "" for the keeper's own.
	DockerHost string `json:"docker_host,omitempty"`
}

// HostLinkRequest carries the flags of mvdhcp host-link.
type HostLinkRequest struct {
	Parent string `json:"parent"`
	// Remove takes the parent's host link away; the rest is empty then.
	Remove bool `json:"remove,omitempty"`
	// Address is given to the link; without one, the DHCP server is asked.
	Address       string        `json:"address,omitempty"`
	Ifname        string        `json:"ifname,omitempty"`
	MAC           string        `json:"mac,omitempty"`
	ClientID      string        `json:"client_id,omitempty"`
	Hostname      string        `json:"hostname,omitempty"`
	ConflictCheck string        `json:"conflict_check,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
}

// DetachRequest names what to detach: a target, and one interface of it when
// Ifname is set (all of them otherwise).
type DetachRequest struct {
	Target     string `json:"target"`
	Ifname     string `json:"ifname,omitempty"`
	KeepLease  bool   `json:"keep_lease,omitempty"`
	DockerHost string `json:"docker_host,omitempty"`
}

// ProbeRequest asks who serves DHCP on a parent.
type ProbeRequest struct {
	Parent      string        `json:"parent"`
	Window      time.Duration `json:"window,omitempty"` // default 2 s, and up to 3 s more for a first answer
	VendorClass string        `json:"vendor_class,omitempty"`
	ClientID    string        `json:"client_id,omitempty"`
	MAC         string        `json:"mac,omitempty"`
}

// ProbeOffer is one server's answer to a probe.
type ProbeOffer struct {
	Server       string   `json:"server"`
	ServerMAC    string   `json:"server_mac"`
	Address      string   `json:"address"`
	Subnet       string   `json:"subnet"`
	Router       string   `json:"router"`
	LeaseSeconds int64    `json:"lease_seconds"`
	DNS          []string `json:"dns"`
	Domain       string   `json:"domain"`
	// Differs names the fields in which this answer is unlike the first one.
	Differs []string `json:"differs,omitempty"`
}

// ProbeResult is what mvdhcp probe prints.
type ProbeResult struct {
	Parent string       `json:"parent"`
	Offers []ProbeOffer `json:"offers"`
}

// Event is one line of mvdhcp events.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     string    `json:"event"` // bound, renewed, rebound, changed, nak, conflict, expired, released, parent-down, …
	Lease    string    `json:"lease,omitempty"`
	Identity string    `json:"identity,omitempty"`
	Target   string    `json:"target,omitempty"`
	Ifname   string    `json:"ifname,omitempty"`
	Parent   string    `json:"parent,omitempty"`
	Address  string    `json:"address,omitempty"`
	Server   string    `json:"server,omitempty"`
	// Old and New show what changed, by field.
	Old     map[string]string `json:"old,omitempty"`
	New     map[string]string `json:"new,omitempty"`
	Message string            `json:"message,omitempty"`
}

// ParentStatus is one parent in Status.
type ParentStatus struct {
	Name    string `json:"name"`
	Up      bool   `json:"up"`
	Carrier bool   `json:"carrier"`
	Missing bool   `json:"missing,omitempty"`
	Leases  int    `json:"leases"`
}

// Status is what mvdhcp status prints.
type Status struct {
	Version     string           `json:"version"`
	PID         int              `json:"pid"`
	StartedAt   time.Time        `json:"started_at"`
	Uptime      float64          `json:"uptime_seconds"`
	Leases      map[string]int   `json:"leases"` // by state
	Parents     []ParentStatus   `json:"parents"`
	StorePath   string           `json:"store_path"`
	StoreBytes  int64            `json:"store_bytes"`
	Socket      string           `json:"socket"`
	Goroutines  int              `json:"goroutines"`
	Threads     int              `json:"threads"`
	Descriptors int              `json:"descriptors"`
	MemoryBytes uint64           `json:"memory_bytes"`
	Jobs        int              `json:"jobs"`   // exchanges under way
	Events      map[string]int64 `json:"events"` // counted since the start, by kind
}

// Code sorts errors into the exit statuses of the command line.
type Code string

// The codes and their exit statuses.
const (
	CodeFailed   Code = "failed"    // 1
	CodeUsage    Code = "usage"     // 2
	CodeNoAnswer Code = "no-answer" // 3
	CodeConflict Code = "conflict"  // 4
	CodeDown     Code = "down"      // 5: no keeper
)

// Error is an error with its code; Message is one line for a person.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Service is the keeper as the API serves it. An error that is no *Error is
// sent as CodeFailed. Methods are safe for concurrent use; when ctx ends,
// Attach undoes what it began before it returns.
type Service interface {
	// Attach reports in a few words what it waits for, through progress.
	Attach(ctx context.Context, req AttachRequest, progress func(string)) (Lease, error)
	// Detach returns the leases it ended (or kept, with KeepLease).
	Detach(ctx context.Context, req DetachRequest) ([]Lease, error)
	// Leases lists those that match query (a lease id, an identity, a target,
	// an address or a MAC; "" is all), with ended ones of the last day when all is set.
	Leases(ctx context.Context, query string, all bool) ([]Lease, error)
	// Renew asks the server now and returns the leases as they are then.
	Renew(ctx context.Context, query string) ([]Lease, error)
	// Release gives the leases back, takes their children away and forgets them.
	Release(ctx context.Context, query string) ([]Lease, error)
	// HostLink makes the host's own child of a parent, or returns the one that
	// is there when it is what was asked for; with Remove it returns the one it
	// took away.
	HostLink(ctx context.Context, req HostLinkRequest, progress func(string)) (Lease, error)
	Probe(ctx context.Context, req ProbeRequest, progress func(string)) (ProbeResult, error)
	// Events calls ready once no later event will be missed, and emit for each
	// event until ctx ends or one of the two fails. A reader too slow for its
	// buffer is told so with an event "lost".
	Events(ctx context.Context, ready func() error, emit func(Event) error) error
	Status(ctx context.Context) (Status, error)
}
