// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// discoverTries is the number of DISCOVERs that one Discover sends, about
	// 0.7 s apart, so that the two repetitions fit into two seconds.
	discoverTries = 3
	discoverWait  = 700 * time.Millisecond
	// maxOffers bounds the servers that one Discover reports.
	maxOffers = 64
)

// Discover asks who is there without taking anything: it sends DISCOVER, up to
// three times, never a REQUEST, and collects the first valid offer of each
// server until ctx is done. No offer at all is an error that wraps ErrNoAnswer.
func (c *Client) Discover(ctx context.Context) ([]Offer, error) {
	x, err := c.begin()
	if err != nil {
		return nil, err
	}
	x.progress("waiting for DHCP servers")
	var offers []Offer
	for n := range discoverTries {
		if n > 0 && x.Unanswered != nil {
			x.Unanswered(n)
		}
		x.secs = secsSince(x.start)
		if err := x.send(x.discover(x.header), limitedBroadcast); err != nil {
			return offers, err
		}
		x.repeated()
		wait, cancel := ctx, context.CancelFunc(func() {})
		if n < discoverTries-1 {
			wait, cancel = context.WithTimeout(ctx, discoverWait)
		}
		offers, err = x.collect(wait, offers)
		cancel()
		if !errors.Is(err, errTimeout) {
			return offers, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(offers) == 0 {
		return nil, x.noAnswer(ctx)
	}
	return offers, nil
}

// FirstOffer asks like Discover, again and again with growing waits, and returns
// the first valid offer. None until ctx is done is an error that wraps
// ErrNoAnswer.
func (c *Client) FirstOffer(ctx context.Context) (Offer, error) {
	x, err := c.begin()
	if err != nil {
		return Offer{}, err
	}
	r, err := x.selecting(ctx)
	if err != nil {
		return Offer{}, err
	}
	return Offer{Binding: r.Binding, FromMAC: r.NextHopMAC}, nil
}

// collect adds offers to those it was given until ctx is done.
func (x *exchange) collect(ctx context.Context, offers []Offer) ([]Offer, error) {
	seen := map[netip.Addr]bool{}
	for _, o := range offers {
		seen[o.Server] = true
	}
	for {
		r, err := x.next(ctx, dhcpv4.MessageTypeOffer)
		if err != nil {
			return offers, err
		}
		if !seen[r.server] && len(offers) < maxOffers {
			seen[r.server] = true
			offers = append(offers, Offer{Binding: r.Binding, FromMAC: r.NextHopMAC})
		}
	}
}
