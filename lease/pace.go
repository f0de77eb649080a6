// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
)

// pace is the time between two messages to one server, from leases that are
// verified or asked for anew: 90 a second, retransmissions counted.
const pace = 11 * time.Millisecond

// pacer holds messages apart. Its zero value is ready; it is safe for concurrent
// use.
type pacer struct {
	mu    sync.Mutex
	lines map[string]*line
}

// line is those who wait for one server.
type line struct {
	first chan struct{} // held by the one who is next
	last  time.Duration // when the one before left; the holder's
}

// line is the line of a key. One that nobody can be waiting in is forgotten when
// there are many.
func (p *pacer) line(key string) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lines[key] == nil {
		if p.lines == nil || len(p.lines) > 1000 {
			p.lines = map[string]*line{}
		}
		p.lines[key] = &line{first: make(chan struct{}, 1), last: -pace}
	}
	return p.lines[key]
}

// await returns a pace after the one before has left, in the order of the calls.
func (p *pacer) await(ctx context.Context, key string, clock Clock) error {
	l := p.line(key)
	select {
	case l.first <- struct{}{}:
		defer func() { <-l.first }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if wait := l.last + pace - clock.Now(); wait > 0 {
		t := time.NewTimer(min(wait, pace))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.last = clock.Now()
	return nil
}

// guarded is a Conn that sends nothing on a parent that is down and, when paced,
// no more than one message a pace to one server.
type guarded struct {
	dhcpclient.Conn
	ctx   context.Context
	k     *Keeper
	r     Record
	paced bool
}

func (k *Keeper) guard(ctx context.Context, conn dhcpclient.Conn, r Record, paced bool) dhcpclient.Conn {
	return &guarded{Conn: conn, ctx: ctx, k: k, r: r, paced: paced}
}

func (g *guarded) Send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	if g.paced {
		if err := g.k.awaitTurn(g.ctx, &g.r); err != nil {
			return err
		}
	}
	if why := g.k.downWhy(g.r.Spec.Parent); why != "" {
		return downError(g.r.Spec.Parent, why)
	}
	return g.Conn.Send(m, to)
}

// awaitTurn waits for the lease's server's next free moment. A lease without a
// server counts for the one that served its parent last.
func (k *Keeper) awaitTurn(ctx context.Context, r *Record) error {
	key := r.Spec.Parent
	k.mu.Lock()
	st := k.parent(key)
	if r.Binding != nil && !r.Binding.Server.IsUnspecified() {
		st.server = r.Binding.Server
	}
	if st.server.IsValid() {
		key = st.server.String()
	}
	k.mu.Unlock()
	return k.pacer.await(ctx, key, k.clock)
}
