// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// Reserve gets a lease without a child: it runs the exchange on one of its own,
// in a namespace of its own, and takes both away before it returns. The lease
// waits for MoveIn. held, when not empty, is the id of a held lease of the pool
// that this one goes on from, with the client identifier that acquired it; when
// this fails it is held as before.
func (k *Keeper) Reserve(ctx context.Context, o AttachOptions, pool Pool, held string, progress func(string)) (Record, error) {
	o.Target, o.Spec.Ifname = Target{Kind: TargetDocker, Name: "docker:"}, "eth0"
	return k.lend(ctx, o, pool, held, func(ctx context.Context, e *entry, prev *Record) error {
		if prev != nil {
			k.update(e, func(r *Record) {
				r.Spec.ClientID, r.Spec.Hostname = prev.Spec.ClientID, cmp.Or(r.Spec.Hostname, prev.Spec.Hostname)
			})
		}
		if err := k.borrow(ctx, e, prev, progress); err != nil {
			return err
		}
		k.update(e, func(r *Record) {
			answered := *r.Pool
			answered.Answered = r.Binding.Address.Addr()
			r.NS, r.Child, r.Pool = provision.Namespace{}, provision.Child{MAC: r.Spec.MAC, NSID: -1}, &answered
		})
		return nil
	})
}

// lend gets a lease for a pool by what get does with its entry in a namespace of
// its own, and leaves it to wait for MoveIn. prev is the held record that the
// entry goes on from, if any.
func (k *Keeper) lend(ctx context.Context, o AttachOptions, pool Pool, held string, get func(ctx context.Context, e *entry, prev *Record) error) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	ns, closeNS, err := k.host.TempNamespace()
	if err != nil {
		return Record{}, fmt.Errorf("failed to make a namespace for the exchange: %w", err)
	}
	defer closeNS()
	o.NS = ns
	if held != "" {
		k.reuse(ctx, held, o.Spec)
	}
	e, prev, jctx, release, err := k.reserve(ctx, k.host, o)
	if err != nil {
		return Record{}, err
	}
	defer release()
	k.update(e, func(r *Record) { r.Pool = &pool })
	var r Record
	if err = get(jctx, e, prev); err == nil {
		r = k.update(e, func(r *Record) {
			r.State = Kept
			e.due = e.expiry()
		})
		err = k.store.Put(r)
	}
	if err != nil {
		k.undo(e, prev)
		if k.record(e).Pool.Held() {
			k.hold(e) // its delay starts anew
		}
		return Record{}, err
	}
	if pool.Endpoint != "" {
		k.event(EvBound, r, "lease bound for endpoint %.12s", pool.Endpoint)
	} else {
		k.event(EvBound, r, "lease bound for an address pool")
	}
	return r, nil
}

// borrow runs the exchange on a child that is gone when it returns without an
// error. A server that is silent does not end the lease that it goes on from
// (RFC 2131, 3.2).
func (k *Keeper) borrow(ctx context.Context, e *entry, prev *Record, progress func(string)) error {
	b, at, err := k.acquire(ctx, e, progress)
	r := k.record(e)
	switch {
	case err == nil:
		k.bind(e, b, at)
	case prev != nil && errors.Is(err, dhcpclient.ErrNoAnswer) && !errors.Is(err, context.Canceled) && k.clock.Now() < k.expiry(e):
		k.log.Warn("no DHCP server answers: the held lease is used on", "lease", r.ID, "identity", r.Spec.Identity, "error", err)
		k.update(e, func(r *Record) { r.Offered, r.Former, r.LastError, r.Established = nil, nil, oneLine(err), true })
	default:
		return err
	}
	if err := k.host.DeleteChild(r.NS, r.Child); err != nil {
		return fmt.Errorf("failed to take the child of the exchange away: %w", err)
	}
	return nil
}

// MoveIn takes a reserved lease over to the interface with its MAC in the
// namespace, which is up, and keeps it from there. It leaves the routes to who
// made the interface. The error wraps provision.ErrGone as long as there is no
// such interface, or none with the address.
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
	parent, err := k.host.Parent(r.link())
	if err != nil {
		return err
	}
	if child.Parent != parent.Index {
		return fmt.Errorf("%s in %s has the MAC of %s, and another parent than %s: %w", child.Name, ns.Path, r.ID, r.link(), provision.ErrGone)
	}
	if addr := r.prefix(); r.Pool.Endpoint == "" {
		if ok, err := k.host.HasAddress(ns, child, addr); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%s in %s does not have %v yet: %w", child.Name, ns.Path, addr, provision.ErrGone))
		}
	}
	k.update(e, func(r *Record) {
		r.NS, r.Target, r.State, r.Spec.Ifname = ns, t, Bound, child.Name
		r.hangOn(k.clock.BootID(), child, parent)
		if child.Mode != "" {
			r.Spec.Mode = child.Mode
		}
	})
	k.rest(e)
	k.save(e)
	err = k.apply(e)
	k.startVerify(e)
	return err
}

// Settled says whose a pool's lease turned out to be, once its owner has set the
// interface up whole: the default route through the lease's router is looked
// after from then on, and the server is told the host name unless it is empty
// or known there.
func (k *Keeper) Settled(ctx context.Context, id string, t Target, network, hostname string, fixedMAC bool) error {
	k.mu.Lock()
	e := k.leases[id]
	k.mu.Unlock()
	if e == nil {
		return nil
	}
	ctx, release, err := k.own(ctx, e, false) // a restart that is under way goes first
	if err != nil {
		return err
	}
	defer release()
	r := k.record(e)
	if r.Pool == nil || !r.State.HasAddress() {
		return nil
	}
	tell := hostname != "" && hostname != r.Spec.Hostname
	k.update(e, func(r *Record) {
		pool := *r.Pool
		pool.Network, pool.FixedMAC, r.Pool, r.Target = network, fixedMAC, &pool, t
		if tell {
			r.Spec.Hostname = hostname
		}
	})
	k.takeRoute(e)
	k.save(e)
	if !tell {
		return nil
	}
	now := k.clock.Now()
	binding, err := k.ask(ctx, e, Renewing)
	if err != nil {
		return fmt.Errorf("host name %s told to the server at the next renewal: %w", hostname, err)
	}
	k.extended(e, binding, now, EvRenewed)
	return nil
}

// takeRoute looks after the default route of a pool's child from now on when it
// leads through the lease's router.
func (k *Keeper) takeRoute(e *entry) {
	r := k.record(e)
	if r.Pool == nil || r.Pool.Endpoint != "" || r.Pool.Router || r.Binding == nil || !r.Binding.Router.IsValid() || !r.State.HasAddress() {
		return
	}
	taken, err := k.host.TakeDefault(r.NS, r.Child, r.Binding.Router, r.Binding.Address.Addr())
	if err != nil {
		k.log.Debug("default route not taken over", "lease", r.ID, "error", err)
		return
	}
	if taken {
		k.update(e, func(r *Record) {
			pool := *r.Pool
			pool.Router = true
			r.Pool = &pool
		})
	}
}
