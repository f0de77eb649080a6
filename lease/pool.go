// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mvdhcp/provision"
)

// Pool is what a lease that was taken for an address pool carries: its child is
// made, and taken away, by somebody else.
type Pool struct {
	ID string `json:"id"`
	// Delay is how long the lease is held after its address was given up, so
	// that a restart finds it again. Negative: until it expires.
	Delay time.Duration `json:"delay"`
	// ReleaseAt is when the held lease is released; zero while it is in use.
	ReleaseAt Moment `json:"release_at,omitzero"`
	// Network is the name of what the pool belongs to, once it is known.
	Network string `json:"network,omitempty"`
}

// Held reports whether the address was given up and waits for its release.
func (p *Pool) Held() bool { return p != nil && p.ReleaseAt.BootID != "" }

// Reserve gets a lease without a child: it runs the exchange on one of its own,
// in a namespace of its own, and takes both away before it returns. The lease
// waits for MoveIn. held, when not empty, is the id of a held lease of the pool
// that this one goes on from, with the client identifier that acquired it.
func (k *Keeper) Reserve(ctx context.Context, o AttachOptions, pool Pool, held string, progress func(string)) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var old *Record
	if held != "" {
		e, release, err := k.seize(ctx, held)
		if err == nil {
			r := k.record(e)
			if r.Pool.Held() {
				old = &r
				k.forget(e)
			}
			release()
		}
	}
	ns, closeNS, err := k.host.TempNamespace()
	if err != nil {
		return Record{}, fmt.Errorf("failed to make a namespace for the exchange: %w", err)
	}
	defer closeNS()
	o.NS, o.Target = ns, Target{Kind: TargetDocker, Name: "docker:"}
	o.Spec.Ifname = "eth0"
	e, _, jctx, release, err := k.reserve(ctx, o)
	if err != nil {
		return Record{}, err
	}
	defer release()
	k.update(e, func(r *Record) {
		r.Pool = &pool
		if old != nil {
			r.Spec.ClientID, r.Binding, r.BoundAt, r.Created, r.Renewals = old.Spec.ClientID, old.Binding, old.BoundAt, old.Created, old.Renewals
			e.bound = old.BoundAt.Boot
			if old.BoundAt.BootID != k.clock.BootID() {
				e.bound = k.clock.Now() - k.clock.Wall().Sub(old.BoundAt.Wall)
			}
		}
	})
	if err := k.borrow(jctx, e, progress); err != nil {
		k.undo(e, nil)
		return Record{}, err
	}
	r := k.record(e)
	if err := k.host.DeleteChild(r.NS, r.Child); err != nil {
		k.undo(e, nil)
		return Record{}, fmt.Errorf("failed to take the child of the exchange away: %w", err)
	}
	r = k.update(e, func(r *Record) {
		r.State, r.NS, r.Child = Kept, provision.Namespace{}, provision.Child{MAC: r.Spec.MAC, NSID: -1}
		e.due = e.bound + r.Binding.Lease
	})
	k.save(e)
	k.event(EvBound, r, "lease bound for an address pool")
	return r, nil
}

// borrow runs the exchange on a child that is not kept.
func (k *Keeper) borrow(ctx context.Context, e *entry, progress func(string)) error {
	r := k.record(e)
	if err := k.store.Put(r); err != nil {
		return err
	}
	child, parent, mode, err := k.makeChild(ctx, e, progress)
	if err != nil {
		return err
	}
	k.update(e, func(r *Record) { r.Child, r.BootID, r.ParentIndex = child, k.clock.BootID(), parent.Index })
	b, at, err := k.exchange(ctx, e, mode, progress)
	if err != nil {
		return err
	}
	k.bind(e, b, at)
	return nil
}

// MoveIn takes a reserved lease over to the interface with its MAC in the
// namespace, and keeps it from there. The error wraps provision.ErrGone as long
// as there is no such interface.
func (k *Keeper) MoveIn(ctx context.Context, id string, ns provision.Namespace, t Target) error {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	r := k.record(e)
	if r.State != Kept || r.Pool == nil || r.Pool.Held() {
		return fmt.Errorf("lease %s is %s: it has moved in or been given up", r.ID, r.State)
	}
	child, err := k.host.FindChild(ns, r.Child)
	if err != nil {
		return err
	}
	parent, err := k.host.Parent(r.Spec.Parent)
	if err != nil {
		return err
	}
	k.update(e, func(r *Record) {
		r.NS, r.Child, r.Target, r.State = ns, child, t, Bound
		r.Spec.Ifname, r.BootID, r.ParentIndex = child.Name, k.clock.BootID(), parent.Index
	})
	k.rest(e)
	k.save(e)
	err = k.apply(e)
	k.startVerify(e)
	return err
}

// Rename gives a pool's lease the target that it turned out to be for.
func (k *Keeper) Rename(ctx context.Context, id string, t Target, network string) error {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	k.update(e, func(r *Record) {
		if r.Pool != nil {
			pool := *r.Pool
			pool.Network, r.Pool, r.Target = network, &pool, t
		}
	})
	k.save(e)
	return nil
}

// GiveUp holds the pool's lease on the address back for its delay, after which
// it is released. It does nothing for an address that the pool does not have.
func (k *Keeper) GiveUp(ctx context.Context, pool string, addr netip.Addr) error {
	for _, v := range k.PoolLeases(pool) {
		if v.Binding == nil || v.Binding.Address.Addr() != addr || v.Pool.Held() {
			continue
		}
		e, release, err := k.seize(ctx, v.ID)
		if err != nil {
			return err
		}
		k.hold(e)
		release()
	}
	return nil
}

// hold turns an owned entry of a pool into a held one.
func (k *Keeper) hold(e *entry) {
	k.endVerify(e)
	if k.record(e).Binding == nil {
		k.teardown(e, "given up without an address", true)
		return
	}
	now := k.clock.Now()
	r := k.update(e, func(r *Record) {
		pool := *r.Pool
		at := now + pool.Delay
		if pool.Delay < 0 {
			at = e.bound + r.Binding.Lease
		}
		pool.ReleaseAt = Moment{BootID: k.clock.BootID(), Boot: at, Wall: k.clock.Wall().Add(at - now)}
		r.State, r.Pool = Kept, &pool
		e.missing, e.suspect, e.tries = false, false, 0
		e.due = at
	})
	k.save(e)
	k.event(EvKept, r, "address given up, held for %v", r.Pool.Delay)
}

// keptUntil is when a kept entry's time is over, and whether it is released then.
func (k *Keeper) keptUntil(e *entry) (at time.Duration, release bool) {
	k.mu.Lock()
	p := e.rec.Pool
	k.mu.Unlock()
	at = k.expiry(e)
	if !p.Held() || p.Delay < 0 {
		return at, false
	}
	due := p.ReleaseAt.Boot
	if p.ReleaseAt.BootID != k.clock.BootID() {
		due = k.clock.Now() + p.ReleaseAt.Wall.Sub(k.clock.Wall())
	}
	return min(at, due), true
}

// PoolLeases returns the leases of a pool; "" is every pool.
func (k *Keeper) PoolLeases(pool string) (vs []View) {
	for _, v := range k.Leases("", false) {
		if v.Pool != nil && (pool == "" || v.Pool.ID == pool) {
			vs = append(vs, v)
		}
	}
	return vs
}

// HeldLease returns the held lease of the pool that the MAC or the identity
// says is the same, or the only one there is, if certain.
func (k *Keeper) HeldLease(pool string, mac net.HardwareAddr, identity string) (id string, err error) {
	var only []string
	for _, v := range k.PoolLeases(pool) {
		if !v.Pool.Held() {
			continue
		}
		if v.Spec.MAC.String() == mac.String() || v.Spec.Identity == identity {
			return v.ID, nil
		}
		only = append(only, v.ID)
	}
	if len(only) == 1 {
		return only[0], nil
	}
	if len(only) > 1 {
		return "", errors.New("several addresses of the pool are held: which one this is can't be told")
	}
	return "", nil
}
