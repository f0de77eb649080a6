// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// OfferWindow is how long Acquire waits for a better offer when the one it has
// is from another server than PreferServer, or of another address than the
// required one.
const OfferWindow = 200 * time.Millisecond

const (
	// requestTries is the number of REQUESTs in REQUESTING before the client
	// goes back to DISCOVER (RFC 2131, 3.1.5).
	requestTries = 4
	// nakTries is the number of NAKs in REQUESTING that end Acquire. Between
	// them it waits 1 s and 2 s.
	nakTries = 3
	// declineWait is how long Acquire waits for an ACK that it wants only to
	// decline.
	declineWait = time.Second
)

// errUnacknowledged sends Acquire back to DISCOVER.
var errUnacknowledged = errors.New("request not acknowledged")

// Acquire goes from INIT to a granted Binding (RFC 2131, 3.1) and returns when
// the address may be configured, or with
//
//   - an error that wraps ErrNoAnswer and ctx.Err() when ctx ends first,
//   - a *NAKError when REQUESTs were refused three times,
//   - a *RefusedIPError when RequireIP is set and another address is offered,
//   - a *ConflictError when the address is in use. The server has been told;
//     wait DeclineWait before the next Acquire.
//
// An error beside a Binding with a valid Address means that the server granted
// it and Requested or ctx ended the call: the caller has a lease to release.
func (c *Client) Acquire(ctx context.Context) (Binding, error) {
	x, err := c.begin()
	if err != nil {
		return Binding{}, err
	}
	for naks := 0; ; {
		b, err := x.acquireOnce(ctx)
		var nak *NAKError
		switch {
		case errors.Is(err, errUnacknowledged):
		case errors.As(err, &nak):
			if naks++; naks == nakTries || !sleep(ctx, backoff(naks-1)) {
				return Binding{}, err
			}
		default:
			return b, err
		}
		x.restart()
	}
}

// acquireOnce runs one transaction.
func (x *exchange) acquireOnce(ctx context.Context) (Binding, error) {
	offer, err := x.selecting(ctx)
	if err != nil {
		return Binding{}, err
	}
	if x.Check != nil {
		if err := x.Check(ctx, offer.Binding); err != nil {
			return Binding{}, x.refuse(ctx, offer, err)
		}
	}
	probing := x.ARP != nil && (x.Conflict == ConflictFast || x.Conflict == ConflictWait)
	if probing && x.Conflict == ConflictFast {
		x.probe(offer.Address.Addr())
	}
	x.progress("%v offers %v, waiting for its acknowledgement", offer.server, offer.Address)
	b, err := x.requesting(ctx, offer)
	if err != nil || !probing {
		return b, err
	}
	return x.verify(ctx, b)
}

// selecting sends DISCOVER until an offer is accepted (RFC 2131, 4.4.1).
func (x *exchange) selecting(ctx context.Context) (reply, error) {
	x.progress("waiting for a DHCP server")
	for n := 0; ; n++ {
		if n > 0 {
			x.repeated()
			x.progress("no DHCP server has answered for %v, asking again", time.Since(x.start).Round(time.Second))
			if x.Unanswered != nil {
				x.Unanswered(n)
			}
		}
		x.secs = secsSince(x.start)
		if err := x.send(x.discover(x.header), limitedBroadcast); err != nil {
			return reply{}, err
		}
		offer, err := x.choose(ctx, time.Now().Add(backoff(n)))
		if !errors.Is(err, errTimeout) {
			return offer, err
		}
		if ctx.Err() != nil {
			return reply{}, x.noAnswer(ctx)
		}
	}
}

// choose returns the first acceptable offer before the deadline. Where a better
// one is to be hoped for it gives that one OfferWindow.
func (x *exchange) choose(ctx context.Context, deadline time.Time) (reply, error) {
	var second reply
	var refused *RefusedIPError
	for {
		r, err := x.nextBefore(ctx, deadline, dhcpv4.MessageTypeOffer)
		if err != nil {
			switch {
			case !errors.Is(err, errTimeout):
				return reply{}, err
			case second.server.IsValid() && ctx.Err() == nil:
				return second, nil
			case refused != nil:
				return reply{}, refused
			}
			return reply{}, err
		}
		waiting := second.server.IsValid() || refused != nil
		switch {
		case x.RequireIP && r.Address.Addr() != x.RequestIP:
			if refused == nil {
				refused = &RefusedIPError{Want: x.RequestIP, Got: r.Address.Addr(), Server: r.server}
			}
		case x.PreferServer.IsValid() && r.server != x.PreferServer:
			if !second.server.IsValid() {
				second = r
			}
		default:
			return r, nil
		}
		if !waiting {
			deadline = time.Now().Add(OfferWindow)
		}
	}
}

// requesting takes up an offer. Only its server's answer counts.
func (x *exchange) requesting(ctx context.Context, offer reply) (Binding, error) {
	addr := offer.Address.Addr()
	first := time.Now()
	var failed error
	for n := range requestTries {
		if n > 0 {
			x.repeated()
		}
		// The secs field stays that of the DISCOVER (RFC 2131, 3.1.3).
		if err := x.send(x.requestSelecting(x.header, addr, offer.server), limitedBroadcast); err != nil {
			return Binding{}, err
		}
		deadline := time.Now().Add(backoff(n))
		if n == 0 && x.Requested != nil {
			failed = x.Requested(ctx)
		}
		b, err := x.acknowledged(ctx, offer, deadline)
		switch {
		case err == nil:
			b.Requested = first
			return b, failed
		case !errors.Is(err, errTimeout):
			return Binding{}, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	x.note(fmt.Sprintf("%v offered %v and did not acknowledge the request", offer.server, addr))
	if ctx.Err() != nil {
		return Binding{}, x.noAnswer(ctx)
	}
	return Binding{}, errUnacknowledged
}

// acknowledged waits for the ACK or NAK of the server of offer.
func (x *exchange) acknowledged(ctx context.Context, offer reply, deadline time.Time) (Binding, error) {
	for {
		r, err := x.nextBefore(ctx, deadline, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak)
		switch {
		case err != nil:
			return Binding{}, err
		case r.server != offer.server:
			x.note(fmt.Sprintf("%v answered a request that was not for it", r.server))
		case r.kind == dhcpv4.MessageTypeNak:
			return Binding{}, &NAKError{Server: r.server, Message: r.message}
		case r.Address.Addr() != offer.Address.Addr():
			x.note(fmt.Sprintf("%v acknowledged %v instead of %v", r.server, r.Address.Addr(), offer.Address.Addr()))
		default:
			return r.Binding, nil
		}
	}
}

// refuse makes the server of offer set the offered address aside. Servers that
// know an offer only as a promise (Kea) ignore its DECLINE, so the address is
// requested first, as RFC 2131, 3.1.5, has it.
func (x *exchange) refuse(ctx context.Context, offer reply, why error) error {
	addr := offer.Address.Addr()
	if err := x.send(x.requestSelecting(x.header, addr, offer.server), limitedBroadcast); err == nil {
		_, _ = x.acknowledged(ctx, offer, time.Now().Add(declineWait))
	}
	err := x.Decline(addr, offer.server, why.Error())
	return &ConflictError{Addr: addr, Server: offer.server, Declined: err == nil, Err: why}
}

func (x *exchange) nextBefore(ctx context.Context, deadline time.Time, wanted ...dhcpv4.MessageType) (reply, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return x.next(ctx, wanted...)
}

// Decline tells server that addr is in use by somebody else (RFC 2131, 4.4.4).
// It is a broadcast, and nothing answers it.
func (c *Client) Decline(addr, server netip.Addr, why string) error {
	x, err := c.begin()
	if err != nil {
		return err
	}
	return x.sendOnce(x.decline(x.header, addr, server, why), limitedBroadcast)
}

// sleep waits for d and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
