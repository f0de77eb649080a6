// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"slices"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// pace is the time between two leases that are verified in one go: 100 a second.
const pace = 10 * time.Millisecond

// settleFor is how long after an event of the kernel an entry is looked at, so
// that the events that belong together are in.
const settleFor = 150 * time.Millisecond

// load takes the store's records over. Each is looked at once Run is under way,
// spread over time.
func (k *Keeper) load() error {
	records, err := k.store.All()
	if err != nil && records == nil {
		return err
	}
	if err != nil {
		k.log.Warn("records left out", "error", err)
	}
	now, wall := k.clock.Now(), k.clock.Wall()
	n := 0
	for _, r := range records {
		if r.State == Ended {
			k.ended = append(k.ended, r)
			continue
		}
		e := &entry{rec: r, pos: -1, suspect: r.State != Kept && r.State != Releasing}
		e.bound = now - wall.Sub(r.BoundAt.Wall)
		if r.BoundAt.BootID == k.clock.BootID() {
			e.bound = r.BoundAt.Boot
		}
		k.leases[r.ID] = e
		e.due = now + time.Duration(n)*pace
		if r.State == Kept {
			e.due, _ = k.keptUntil(e)
		}
		n++
		if _, known := k.down[r.Spec.Parent]; !known {
			p, err := k.host.Parent(r.Spec.Parent)
			k.down[r.Spec.Parent] = err != nil || !p.Carrier
		}
		k.due.set(e, e.due)
	}
	slices.SortFunc(k.ended, func(a, b Record) int { return a.EndedAt.Compare(b.EndedAt) })
	for _, id := range k.pruneEnded() {
		if err := k.store.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

// Adopt takes over a record that is not in the store, as one found on a child in
// the kernel after the store was lost. The address is verified before long.
func (k *Keeper) Adopt(r Record, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.leases {
		if e.rec.ID == r.ID {
			return
		}
	}
	e := &entry{rec: r, pos: -1}
	e.rec.State = InitReboot
	e.bound = k.clock.Now() - (r.Binding.Lease - left)
	e.rec.BoundAt = k.moment(e.bound)
	k.leases[r.ID] = e
	k.due.set(e, k.clock.Now())
	k.poke()
}

// inspect compares an owned entry with the kernel, and reports whether the
// lease goes on as its state says.
func (k *Keeper) inspect(e *entry) bool {
	k.update(e, func(*Record) { e.suspect = false })
	r := k.record(e)
	switch {
	case r.State == Kept || r.State == Releasing:
		return true
	case !r.Established:
		// The child may have been made after the intent was stored.
		if c, err := k.host.FindChild(r.NS, r.Child); err == nil && c.Name == r.Child.Name {
			k.update(e, func(r *Record) { r.Child = c })
		}
		k.teardown(e, "its attach was interrupted", true)
		return false
	}
	rebooted := r.BootID != k.clock.BootID()
	if !k.host.Alive(r.Target, r.NS) {
		moved, err := k.host.Moved(r.NS)
		switch {
		case rebooted && r.Pool == nil:
			k.update(e, func(r *Record) {
				e.missing, e.until = true, k.clock.Now()+k.grace
				e.due = k.clock.Now()
			})
			return true
		case r.Target.Kind == TargetNetNS && err == nil:
			k.update(e, func(r *Record) { r.NS = moved })
			k.save(e)
			r = k.record(e)
		case r.Pool != nil:
			k.hold(e)
			return false
		default:
			k.teardown(e, r.Target.Name+" is gone", true)
			return false
		}
	}
	child, err := k.host.FindChild(r.NS, r.Child)
	if errors.Is(err, provision.ErrGone) {
		p, perr := k.host.Parent(r.Spec.Parent)
		switch {
		case r.Pool != nil:
			k.hold(e)
			return false
		case !rebooted && perr == nil && p.Index == r.ParentIndex:
			k.teardown(e, "its interface "+r.Child.Name+" was deleted", true)
			return false
		}
		k.update(e, func(*Record) { e.missing, e.until, e.tries = true, never, 0 })
		return true
	}
	if err != nil {
		k.note(e, err)
		return true
	}
	k.update(e, func(r *Record) { r.Child = child })
	if !r.State.HasAddress() {
		return true
	}
	now := k.clock.Now()
	if now >= k.expiry(e) {
		return true
	}
	if ok, err := k.host.HasAddress(r.NS, child, r.Binding.Address); err == nil && !ok {
		if err := k.apply(e); err != nil {
			k.note(e, err)
		}
	}
	if rebooted || r.Binding.Lease != dhcpclient.Infinite && now >= e.bound+r.Binding.T1 {
		k.state(e, InitReboot)
	} else {
		k.rest(e)
	}
	return true
}

// heal makes the missing child of an owned entry again, with its name, MAC and,
// if the server agrees, address.
func (k *Keeper) heal(ctx context.Context, e *entry) {
	r := k.record(e)
	now := k.clock.Now()
	if !k.host.Alive(r.Target, r.NS) {
		ns, err := k.host.Again(r.Target, r.NS)
		switch {
		case err == nil && r.BootID != k.clock.BootID():
			r = k.update(e, func(r *Record) { r.NS = ns })
		case now >= e.until || r.BootID == k.clock.BootID():
			k.teardown(e, r.Target.Name+" is gone", true)
			return
		default:
			e.due = min(e.until, now+time.Second)
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*exchangeFor)
	defer cancel()
	err := k.bringUp(ctx, e, func(string) {})
	if err == nil {
		k.event(EvHealed, k.record(e), "child made again")
		return
	}
	k.host.DeleteChild(r.NS, k.record(e).Child)
	k.update(e, func(r *Record) {
		if !e.missing { // it was bound, and failed after that
			e.missing, e.until = true, never
		}
		if r.LastError = oneLine(err); r.Binding == nil {
			r.State = Init
		} else {
			r.State = InitReboot
		}
		e.tries++
		e.due = k.clock.Now() + backoff(e.tries)
	})
}

// suspectNow makes an owned entry be looked at again at once.
func (k *Keeper) suspectNow(e *entry) {
	k.update(e, func(*Record) {
		e.suspect = true
		e.due = k.clock.Now() + settleFor
	})
}
