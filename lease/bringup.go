// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// bringUp takes an owned entry from its record to a configured child. What it
// did before an error is the caller's to undo.
func (k *Keeper) bringUp(ctx context.Context, e *entry, progress func(string)) error {
	b, at, err := k.acquire(ctx, e, progress)
	if err != nil {
		return err
	}
	stored := k.store.Note(k.bound(e, b, at))
	err = k.apply(e)
	k.logUnstored(e, stored())
	if err != nil {
		return err
	}
	k.event(EvBound, k.record(e), "lease bound")
	k.startVerify(e)
	return nil
}

// acquire takes an owned entry from its record to a child that has run the
// exchange: the record is stored, then come parent, child and exchange. What it
// did before an error is the caller's to undo. The moment returned is when the
// REQUEST went out.
//
// The store takes its time beside the work: a child outlives the keeper, but not
// a power cut, so that the intent has to last as long as the child only, until
// the first packet leaves.
func (k *Keeper) acquire(ctx context.Context, e *entry, progress func(string)) (b dhcpclient.Binding, at time.Duration, err error) {
	stored := k.store.Note(k.record(e))
	child, parent, mode, err := k.makeChild(ctx, e, progress)
	if err == nil {
		k.update(e, func(r *Record) { r.hangOn(k.clock.BootID(), child, parent) })
	}
	if err = errors.Join(err, stored()); err != nil {
		return b, 0, err
	}
	return k.exchange(ctx, e, mode, progress)
}

// makeChild makes sure of the parent and makes the entry's child on it, in the
// mode it returns.
func (k *Keeper) makeChild(ctx context.Context, e *entry, progress func(string)) (child provision.Child, parent provision.Parent, mode provision.Mode, err error) {
	r := k.record(e)
	if err := k.CheckParent(r.Spec.Parent); err != nil {
		return child, parent, mode, err
	}
	parent, made, err := k.host.EnsureParent(r.Spec.Parent)
	if err != nil {
		return child, parent, mode, err
	}
	if made {
		k.update(e, func(r *Record) { r.MadeParent = true })
		k.save(e)
	}
	if parent, err = k.carrier(ctx, parent, progress); err != nil {
		return child, parent, mode, err
	}
	mode = r.Spec.Mode
	if mode == provision.Bridge {
		mode = provision.Private // siblings don't see what only the server needs to
	}
	child, err = k.at(e).CreateChild(ctx, r.NS, provision.ChildSpec{
		Parent: parent, Name: r.Spec.Ifname, MAC: r.Spec.MAC, Mode: mode, Alias: aliasOf(&r),
	})
	if err != nil {
		return child, parent, mode, fmt.Errorf("%s: failed to make %s on %s: %w", r.Target.Name, r.Spec.Ifname, r.Spec.Parent, err)
	}
	return child, parent, mode, nil
}

// carrierWait is how long a parent that was just brought up may take to get a
// carrier before an attach fails.
const carrierWait = 5 * time.Second

// carrier waits for the parent's carrier.
func (k *Keeper) carrier(ctx context.Context, p provision.Parent, progress func(string)) (provision.Parent, error) {
	if p.Carrier {
		return p, nil
	}
	progress("waiting for a carrier on " + p.Name)
	ctx, cancel := context.WithTimeout(ctx, carrierWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.noCarrier(p.Name)
			return p, noCarrier(p.Name)
		case <-tick.C:
		}
		if n, err := k.host.Parent(p.Name); err == nil && n.Carrier {
			return n, nil
		}
	}
}

// exchange gets a binding for the entry's child, which is in mode now: by
// INIT-REBOOT when the record has one that has not expired, else from DISCOVER
// on. An address in use is declined and another asked for after declineWait, as
// long as ctx lasts. The moment returned is when the REQUEST went out.
func (k *Keeper) exchange(ctx context.Context, e *entry, mode provision.Mode, progress func(string)) (b dhcpclient.Binding, at time.Duration, err error) {
	r := k.record(e)
	if r.Spec.Static.IsValid() {
		return k.fixed(ctx, e, mode, progress)
	}
	host := k.at(e)
	conn, err := host.Packet(r.NS, r.Child, netip.Addr{}, nil)
	if err != nil {
		return b, 0, fmt.Errorf("%s: failed to open a socket on %s: %w", r.Target.Name, r.Child.Name, err)
	}
	defer conn.Close()
	conn = k.guard(ctx, conn, r, e.paced)
	open := func(context.Context) error {
		if mode == r.Spec.Mode {
			return nil
		}
		if err := host.SetMode(r.NS, r.Child, r.Spec.Mode); err != nil {
			return fmt.Errorf("%s: failed to set %s to mode %s: %w", r.Target.Name, r.Child.Name, r.Spec.Mode, err)
		}
		mode = r.Spec.Mode
		return nil
	}
	var failed error // of open, in a callback that can't return it
	c := dhcpclient.Client{
		Params: r.request(), Conn: conn, Conflict: r.Spec.Conflict, Log: k.log, Progress: progress, Requested: open,
		Unanswered: func(n int) {
			if n == 2 { // the server may be a sibling
				failed = open(ctx)
			}
		},
		Check: func(_ context.Context, offer dhcpclient.Binding) error {
			at = k.clock.Now()
			return k.held(e, offer)
		},
	}
	if r.Spec.Conflict == dhcpclient.ConflictFast || r.Spec.Conflict == dhcpclient.ConflictWait {
		arp, err := host.ARP(r.NS, r.Child)
		if err != nil {
			return b, 0, fmt.Errorf("%s: failed to open an ARP socket on %s: %w", r.Target.Name, r.Child.Name, err)
		}
		defer arp.Close()
		c.ARP = arp
	}
	// An attach may demand another address than that of the kept lease it goes on from.
	anyAddress := r.Established || !r.Spec.RequestIP.IsValid()
	if old := r.Binding; old != nil && k.clock.Now() < k.expiry(e) && (anyAddress || old.Address.Addr() == r.Spec.RequestIP) {
		k.state(e, Rebooting)
		progress("verifying " + old.Address.Addr().String())
		at = k.clock.Now()
		rctx, cancel := context.WithTimeout(ctx, extendFor)
		b, err = c.Reboot(rctx, old.Address.Addr())
		cancel()
		if err == nil {
			return b, at, errors.Join(failed, open(ctx))
		}
		if ctx.Err() != nil {
			return b, 0, err
		}
		k.log.Debug("INIT-REBOOT failed", "lease", r.ID, "error", err)
	}
	for {
		k.state(e, Selecting)
		b, err = c.Acquire(ctx)
		if err == nil {
			return b, at, errors.Join(failed, open(ctx))
		}
		if b.Address.IsValid() { // granted all the same: to be given back
			k.update(e, func(r *Record) { r.Offered = &b })
		}
		var conflict *dhcpclient.ConflictError
		if !errors.As(err, &conflict) {
			return b, 0, err
		}
		k.update(e, func(r *Record) { r.Offered = nil })
		k.event(EvConflict, k.record(e), "%v", conflict)
		if deadline, ok := ctx.Deadline(); r.Spec.RequestIP.IsValid() || ok && time.Until(deadline) < declineWait {
			return b, 0, err
		}
		progress(fmt.Sprintf("%v; waiting %v for another", conflict, declineWait))
		select {
		case <-ctx.Done():
			return b, 0, err
		case <-time.After(declineWait):
		}
	}
}

// held reports who on this host has the address: another lease on the same
// parent, or the host itself, neither of which ARP from a child would find. It
// also notes the offer, so that a keeper killed before the ACK can give it back.
func (k *Keeper) held(e *entry, offer dhcpclient.Binding) error {
	addr := offer.Address.Addr()
	k.mu.Lock()
	now := k.clock.Now()
	for _, o := range k.leases {
		if former := o.rec.keptFor(&e.rec.Spec); o != e && !former && o.rec.Binding != nil && o.rec.Spec.Parent == e.rec.Spec.Parent && o.rec.Binding.Address.Addr() == addr && (o.rec.State.HasAddress() || o.rec.State == Kept) && now < o.expiry() {
			by := o.rec.Spec.Identity
			k.mu.Unlock()
			return fmt.Errorf("it is leased to %s on this host", by)
		}
	}
	k.mu.Unlock()
	if e.rec.Spec.Conflict != dhcpclient.ConflictOff {
		if ifname, ok, err := k.host.HostHas(addr); err == nil && ok && (e.rec.Target.Kind != TargetHost || ifname != e.rec.Child.Name) {
			return fmt.Errorf("the host itself has it on %s", ifname)
		}
	}
	r := k.update(e, func(r *Record) {
		r.State = Requesting
		r.Offered = &offer
	})
	k.store.Note(r)
	return nil
}

// bind enters a binding into the record and stores it.
func (k *Keeper) bind(e *entry, b dhcpclient.Binding, at time.Duration) {
	k.bound(e, b, at)
	k.save(e)
}

// bound enters a binding into the record, and sets what is due next.
func (k *Keeper) bound(e *entry, b dhcpclient.Binding, at time.Duration) Record {
	m := k.moment(at)
	return k.update(e, func(r *Record) {
		r.State, r.Binding, r.BoundAt, r.Offered, r.Former, r.LastError, r.Established = Bound, &b, m, nil, nil, "", true
		e.bound, e.tries, e.missing, e.suspect, e.until = at, 0, false, false, 0
		e.due = never
		if b.Lease != dhcpclient.Infinite {
			e.due = at + b.T1
		}
	})
}

// never is a due time that does not come.
const never = time.Duration(1<<63 - 1)

// expiry is when the entry's binding ends.
func (k *Keeper) expiry(e *entry) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return e.expiry()
}

// expiry is when the entry's binding ends. The keeper's lock is held.
func (e *entry) expiry() time.Duration {
	b := e.rec.Binding
	switch {
	case b == nil:
		return 0
	case b.Lease == dhcpclient.Infinite:
		return never
	}
	return e.bound + b.Lease
}

func (k *Keeper) state(e *entry, s State) { k.update(e, func(r *Record) { r.State = s }) }

// apply makes the child match the binding, and resolv.conf as well when that
// was asked for.
func (k *Keeper) apply(e *entry) error {
	r := k.record(e)
	cfg := k.wanted(&r, k.expiry(e)-k.clock.Now())
	if r.Target.Kind == TargetHost {
		k.update(e, func(*Record) { e.routes = cfg.Routes })
	}
	err := k.at(e).Apply(r.NS, r.Child, cfg)
	if errors.Is(err, provision.ErrRoute) {
		k.log.Warn("routes left out", "lease", r.ID, "target", r.Target.Name, "error", err)
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: failed to configure %s with %v: %w", r.Target.Name, r.Child.Name, r.Binding.Address, err)
	}
	return k.applyDNS(e)
}

// config is what the binding puts on the child, with that much time left.
func (r *Record) config(left time.Duration) provision.Config {
	b := r.Binding
	c := provision.Config{Address: r.prefix(), Lifetime: max(left, time.Second), Metric: r.Spec.Metric, MTU: r.Spec.MTU}
	if b.Lease == dhcpclient.Infinite {
		c.Lifetime = provision.Forever
	}
	if c.MTU == 0 {
		c.MTU = b.MTU
	}
	c.Shared = r.Pool != nil && r.Pool.Endpoint != ""
	if r.Spec.Routes != RoutesNone && (r.Pool == nil || c.Shared || r.Pool.Router) {
		c.Router = b.Router
	}
	if r.Spec.Routes == RoutesAll {
		for _, rt := range b.Routes {
			c.Routes = append(c.Routes, provision.Route{Dst: rt.Dst, Via: rt.Via})
		}
	}
	return c
}
