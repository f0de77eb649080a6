// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
)

// ConflictCheck says how an address is tested before and after it is bound
// (RFC 5227).
type ConflictCheck string

const (
	// ConflictFast probes the offered address while the REQUEST is under way
	// and waits at most FastWait longer than that. The caller goes on probing
	// in the background.
	ConflictFast ConflictCheck = "fast"
	// ConflictWait takes the full timing of RFC 5227, section 2.1.1 (4 to 7 s).
	ConflictWait ConflictCheck = "wait"
	// ConflictAsync waits for nothing; the caller probes once it is bound.
	ConflictAsync ConflictCheck = "async"
	// ConflictOff neither probes nor listens.
	ConflictOff ConflictCheck = "off"
)

// Params is what a client says of itself in every message of an exchange. The
// identifier a lease was acquired with must be used for all its later messages.
type Params struct {
	MAC         net.HardwareAddr // chaddr, 6 bytes
	ClientID    []byte           // option 61, type byte first; empty: not sent
	Hostname    string           // option 12; empty: not sent
	VendorClass string           // option 60; empty: not sent
	UserClass   string           // option 77; empty: not sent
	// RequestIP is asked for with option 50 in DISCOVER.
	RequestIP netip.Addr
	// RequireIP refuses every offer of another address than RequestIP.
	RequireIP bool
	// PreferServer is waited for a little when another server offers first.
	PreferServer netip.Addr
	// AllowServers, when not empty, are the only servers listened to.
	AllowServers []netip.Addr
	// DenyServers are never listened to.
	DenyServers []netip.Addr
}

// Client runs exchanges over Conn. It is for one goroutine at a time; the
// callbacks run on the caller's goroutine and may be nil.
type Client struct {
	Params
	Conn Conn
	// ARP is used by Acquire for ConflictFast and ConflictWait.
	ARP ARPConn
	// Conflict is the check Acquire makes. The zero value is ConflictOff.
	Conflict ConflictCheck
	// Progress is told in a few words what the exchange waits for.
	Progress func(step string)
	// Unanswered is called before the n-th retransmission of DISCOVER (n
	// counts from 1).
	Unanswered func(n int)
	// Check is asked about the offer before the REQUEST. An error
	// is taken for a conflict: the address is requested only to be declined,
	// so that the server sets it aside, and Acquire fails with a
	// *ConflictError that wraps the error.
	Check func(ctx context.Context, offer Binding) error
	// Requested is called once Acquire has sent its REQUEST, and the server is
	// busy with it, so that the caller can open the link to its siblings before
	// the last look for a conflict. Its error is returned with the Binding.
	Requested func(ctx context.Context) error
	// Log gets one debug line a message. Nil: slog.Default().
	Log *slog.Logger
}

// Offer is one server's answer to DISCOVER.
type Offer struct {
	Binding
	FromMAC net.HardwareAddr
}

// ErrNoAnswer means that no acceptable answer came in time. Errors that wrap
// it say what was heard instead, if anything.
var ErrNoAnswer = errors.New("no DHCP server answered")

// NAKError is a DHCPNAK (RFC 2131, 3.1.4).
type NAKError struct {
	Server  netip.Addr
	Message string // option 56, printable, at most 255 bytes
}

func (e *NAKError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("server %v refused the request (DHCPNAK)", e.Server)
	}
	return fmt.Sprintf("server %v refused the request (DHCPNAK: %s)", e.Server, e.Message)
}

// ConflictError says that an offered address is in use. The server has been
// sent a DHCPDECLINE when Declined is set.
type ConflictError struct {
	Addr     netip.Addr
	Server   netip.Addr
	By       net.HardwareAddr // nil when Err says who holds it
	Declined bool
	Err      error
}

func (e *ConflictError) Error() string {
	what := "address " + e.Addr.String()
	if e.Server.IsValid() {
		what += " offered by " + e.Server.String()
	}
	if e.Err != nil {
		return fmt.Sprintf("%s is in use: %v", what, e.Err)
	}
	return fmt.Sprintf("%s is in use by %v", what, e.By)
}

func (e *ConflictError) Unwrap() error { return e.Err }

// RefusedIPError says that servers offered only other addresses than the one
// that was required.
type RefusedIPError struct {
	Want, Got, Server netip.Addr
}

func (e *RefusedIPError) Error() string {
	return fmt.Sprintf("server %v offers %v instead of the requested %v", e.Server, e.Got, e.Want)
}
