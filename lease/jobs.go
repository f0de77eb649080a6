// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// work does what is due for an owned entry and sets what is due next.
func (k *Keeper) work(ctx context.Context, e *entry) {
	now := k.clock.Now()
	k.mu.Lock()
	suspect, due := e.suspect, e.due <= now
	k.mu.Unlock()
	if suspect {
		due = k.inspect(e)
	}
	if !k.reroute(e) || !due {
		return
	}
	now = k.clock.Now()
	r := k.record(e)
	switch r.State {
	case Releasing:
		if k.isDown(r.Spec.Parent) || k.awaitTurn(ctx, &r) == nil {
			k.teardown(e, r.EndReason, true)
		}
		return
	case Kept:
		at, release := k.keptUntil(e)
		switch e.due = at; {
		case now < at:
			k.refresh(ctx, e)
		case r.Waiting:
			k.outwait(e)
		case release:
			if by, taken := k.takenOver(ctx, e); taken {
				k.end(e, "given up; "+by+" has its address by now")
				return
			}
			k.teardown(e, "given up, and not back in time", true)
		default:
			k.end(e, "kept until it expired")
		}
		return
	}
	if r.State.HasAddress() && now >= k.expiry(e) {
		k.expire(e)
	}
	if e.missing {
		k.heal(ctx, e)
		return
	}
	switch r = k.record(e); r.State {
	case Init, Selecting, Requesting:
		k.restart(ctx, e)
	case InitReboot, Rebooting:
		k.reboot(ctx, e)
	default:
		k.extend(ctx, e)
	}
}

// extend renews or rebinds (RFC 2131, 4.4.5). A parent that is down costs no
// packet; the lease's clock goes on.
func (k *Keeper) extend(ctx context.Context, e *entry) {
	r := k.record(e)
	now := k.clock.Now()
	if r.Binding.Lease == dhcpclient.Infinite || now < e.bound+r.Binding.T1 {
		k.rest(e)
		return
	}
	s := Renewing
	if now >= e.bound+r.Binding.T2 {
		s = Rebinding
	}
	r = k.update(e, func(r *Record) { r.State = s })
	if why := k.downWhy(r.Spec.Parent); why != "" {
		k.later(e, downError(r.Spec.Parent, why))
		return
	}
	b, err := k.ask(ctx, e, s)
	switch {
	case err == nil:
		k.extended(e, b, now, map[State]EventKind{Renewing: EvRenewed, Rebinding: EvRebound}[s])
	case errors.Is(err, provision.ErrGone):
		k.suspectNow(e)
	default:
		k.answered(e, err)
	}
}

// ask sends one REQUEST to extend the binding and waits for the answer. A
// renewal goes over UDP, and from the link layer where UDP is refused.
func (k *Keeper) ask(ctx context.Context, e *entry, s State) (b dhcpclient.Binding, err error) {
	r := k.record(e)
	ctx, cancel := context.WithTimeout(ctx, extendFor)
	defer cancel()
	c := dhcpclient.Client{Params: r.request(), Log: k.log}
	addr := r.Binding.Address.Addr()
	// A host link has no routes but those to its peers: UDP would not find a
	// server beyond a relay.
	if s == Renewing && r.Target.Kind != TargetHost {
		if c.Conn, err = k.host.UDP(r.NS, r.Child, addr); err == nil {
			c.Conn = k.guard(ctx, c.Conn, r, false)
			b, err = c.Renew(ctx, *r.Binding)
			c.Conn.Close()
			if err == nil {
				if mac, nerr := k.host.Neighbour(r.NS, r.Child, b.Server); nerr == nil && mac != nil {
					b.NextHopMAC = mac
				} else if b.NextHopMAC == nil {
					b.NextHopMAC = r.Binding.NextHopMAC
				}
				return b, nil
			}
		}
		if errors.Is(err, dhcpclient.ErrNoAnswer) || isNAK(err) || errors.Is(err, provision.ErrGone) || errors.Is(err, errDown) || ctx.Err() != nil {
			return b, err
		}
		k.log.Debug("renewal over UDP refused, sending it from the link layer", "lease", r.ID, "error", err)
	}
	if c.Conn, err = k.host.Packet(r.NS, r.Child, addr, r.Binding.NextHopMAC); err != nil {
		return b, err
	}
	defer c.Conn.Close()
	c.Conn = k.guard(ctx, c.Conn, r, false)
	if s == Renewing {
		return c.Renew(ctx, *r.Binding)
	}
	return c.Rebind(ctx, *r.Binding)
}

func isNAK(err error) bool { return errors.As(err, new(*dhcpclient.NAKError)) }

// extended takes a fresh ACK for the binding: what it changes is applied.
func (k *Keeper) extended(e *entry, b dhcpclient.Binding, at time.Duration, kind EventKind) {
	k.takeRoute(e)
	old := k.record(e).Binding
	k.bound(e, b, at)
	r := k.update(e, func(r *Record) { r.Renewals++ })
	k.save(e)
	if old.MTU != 0 && b.MTU == 0 && r.Spec.MTU == 0 { // the parent's counts again
		if err := k.host.FollowMTU(r.NS, r.Child, int(old.MTU), 0); err != nil {
			k.note(e, err)
		}
	}
	if err := k.apply(e); err != nil {
		k.note(e, err)
		if errors.Is(err, provision.ErrGone) {
			k.suspectNow(e)
			return
		}
		k.event(EvFailed, k.record(e), "%v", err)
	}
	k.event(kind, r, "lease %s", kind)
	if was, is := diffBindings(old, &b); len(is) > 0 {
		k.hub.emit(Event{Time: k.clock.Wall(), Kind: EvChanged, Parent: r.Spec.Parent, Record: r, Old: was, New: is, Message: "lease changed"})
	}
}

// answered takes an error from the server's side: a NAK ends the binding at
// once, silence is tried again later.
func (k *Keeper) answered(e *entry, err error) {
	if !isNAK(err) {
		k.later(e, err)
		return
	}
	r := k.record(e)
	k.lose(e, err, 0)
	k.event(EvNAK, r, "%v", err)
}

// lose takes the address off the child and starts at INIT after wait. The event
// is the caller's to tell of, after it: whoever hears of it finds the lease
// without the address.
func (k *Keeper) lose(e *entry, err error, wait time.Duration) {
	k.endVerify(e)
	r := k.record(e)
	if uerr := k.host.Unconfigure(r.NS, r.Child); uerr != nil && !errors.Is(uerr, provision.ErrGone) {
		k.log.Error("address not taken off", "lease", r.ID, "error", uerr)
	}
	k.update(e, func(r *Record) {
		r.State, r.Binding, r.LastError = Init, nil, oneLine(err)
		e.tries = 0
		e.due = k.clock.Now() + wait
	})
	k.save(e)
}

// expire ends a binding that ran out; the kernel has taken the address already.
func (k *Keeper) expire(e *entry) {
	r := k.record(e)
	err := fmt.Errorf("lease of %v from %v expired", r.Binding.Address, r.Binding.Server)
	k.lose(e, err, 0)
	k.event(EvExpired, r, "%v", err)
}

// restart runs one try from INIT on a child that is there.
func (k *Keeper) restart(ctx context.Context, e *entry) {
	r := k.record(e)
	if why := k.downWhy(r.Spec.Parent); why != "" {
		k.later(e, downError(r.Spec.Parent, why))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeFor)
	defer cancel()
	e.paced = true
	defer func() { e.paced = false }()
	b, at, err := k.exchange(ctx, e, r.Spec.Mode, func(string) {})
	var conflict *dhcpclient.ConflictError
	switch {
	case err == nil:
		k.bind(e, b, at)
		if err := k.apply(e); err != nil {
			k.note(e, err)
			k.event(EvFailed, k.record(e), "%v", err)
		}
		k.event(EvBound, k.record(e), "lease bound")
		k.startVerify(e)
	case errors.Is(err, provision.ErrGone):
		k.state(e, Init)
		k.suspectNow(e)
	case errors.As(err, &conflict):
		k.update(e, func(r *Record) {
			r.State, r.Offered, r.LastError = Init, nil, oneLine(err)
			e.due = k.clock.Now() + declineWait
		})
	default:
		k.state(e, Init)
		k.later(e, err)
	}
}

// reboot verifies a binding by INIT-REBOOT (RFC 2131, 3.2). Silence leaves it in
// use until it expires; it is verified again until T1, less and less often.
func (k *Keeper) reboot(ctx context.Context, e *entry) {
	r := k.update(e, func(r *Record) { r.State = Rebooting })
	if k.isDown(r.Spec.Parent) || r.Spec.Static.IsValid() {
		k.rest(e)
		return
	}
	now := k.clock.Now()
	conn, err := k.host.Packet(r.NS, r.Child, netip.Addr{}, nil)
	if err == nil {
		c := dhcpclient.Client{Params: r.request(), Conn: k.guard(ctx, conn, r, true), Log: k.log}
		rctx, cancel := context.WithTimeout(ctx, exchangeFor)
		var b dhcpclient.Binding
		b, err = c.Reboot(rctx, r.Binding.Address.Addr())
		cancel()
		conn.Close()
		if err == nil {
			k.extended(e, b, now, EvRebound)
			return
		}
	}
	switch {
	case errors.Is(err, provision.ErrGone):
		k.suspectNow(e)
	case isNAK(err):
		k.answered(e, err)
	case errors.Is(err, errDown):
		k.note(e, err)
		k.rest(e)
	default:
		k.note(e, err)
		tries := e.tries
		k.rest(e)
		k.update(e, func(r *Record) {
			now := k.clock.Now()
			if now < e.due { // T1
				r.State, e.tries = InitReboot, tries+1
				e.due = min(e.due, now+reverify(tries))
			}
			e.due = max(e.due, now+time.Second)
		})
	}
}

// reverify is the wait before an address that nobody answered for is verified
// once more, after n such tries: doubling from 15 s to half an hour, less up to
// a quarter.
func reverify(n int) time.Duration {
	d := min(15*time.Second<<min(n, 10), 30*time.Minute)
	return d - rand.N(d/4)
}

// rest puts an entry with a binding to sleep until its T1 (or sooner, when that
// has passed).
func (k *Keeper) rest(e *entry) {
	k.update(e, func(r *Record) {
		r.State, e.tries = Bound, 0
		e.due = never
		if r.Binding.Lease != dhcpclient.Infinite {
			e.due = e.bound + r.Binding.T1
		}
	})
}

// later notes an unanswered try and sets the next.
func (k *Keeper) later(e *entry, err error) {
	k.update(e, func(r *Record) {
		r.LastError = oneLine(err)
		now := k.clock.Now()
		e.tries++
		switch b := r.Binding; {
		case b == nil:
			e.due = now + backoff(e.tries)
		case r.State == Renewing:
			e.due = now + retry(e.bound+b.T2-now, b.Lease)
		default:
			e.due = now + retry(e.bound+b.Lease-now, b.Lease)
		}
	})
}

// retry is the wait between two tries to extend a lease: half of what remains,
// at least 60 s (RFC 2131, 4.4.5) or, for short leases, a twentieth of the
// lease; never beyond what remains.
func retry(remains, lease time.Duration) time.Duration {
	least := min(time.Minute, max(time.Second, lease/20))
	return max(min(max(remains/2, least), remains), 0)
}

// backoff is the wait before the n-th try from INIT: doubling from 2 s to
// maxBackoff, less up to a quarter.
func backoff(n int) time.Duration {
	d := min(time.Second<<min(n, 10), maxBackoff)
	return d - rand.N(d/4)
}

func (k *Keeper) note(e *entry, err error) {
	k.update(e, func(r *Record) { r.LastError = oneLine(err) })
}

// oneLine is an error's text for a record, at most 500 bytes.
func oneLine(err error) string {
	s := []byte(err.Error())
	if len(s) > 500 {
		s = s[:500]
	}
	for i, c := range s {
		if c < ' ' {
			s[i] = ' '
		}
	}
	return string(s)
}
