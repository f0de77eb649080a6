// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

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
			if r.MadeParent {
				k.leaving[r.Spec.Parent] = leaving{}
			}
			continue
		}
		suspect := r.State != Kept && r.State != Releasing
		e := &entry{rec: r, pos: -1, suspect: suspect, resumed: suspect}
		e.bound = now - wall.Sub(r.BoundAt.Wall)
		if r.BoundAt.BootID == k.clock.BootID() {
			e.bound = r.BoundAt.Boot
		}
		k.enter(e)
		e.due = now + time.Duration(n)*pace
		if r.State == Kept {
			e.due = k.keptDue(e)
		}
		n++
		if k.parents[r.Spec.Parent] == nil && r.State != Kept {
			st := k.parent(r.Spec.Parent)
			switch p, err := k.findParent(&r); {
			case err != nil:
				st.down, st.gone = "is gone", true
			case !p.Up:
				st.down = "is set down"
			case !p.Carrier:
				st.down = "has no carrier"
			}
			st.since -= max(carrierWait, flapWithin) // for longer, as far as is known
		}
		e.look, e.reroute = e.due, suspect && r.Target.Kind == TargetHost
		k.schedule(e)
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
	if k.leases[r.ID] != nil {
		return
	}
	e := &entry{rec: r, pos: -1, suspect: true}
	e.rec.State, e.rec.BootID = InitReboot, k.clock.BootID()
	e.bound = k.clock.Now() - (r.Binding.Lease - left)
	e.rec.BoundAt = k.moment(e.bound)
	k.enter(e)
	e.due = k.clock.Now()
	e.look, e.reroute = e.due, r.Target.Kind == TargetHost
	k.schedule(e)
	k.poke()
}

// inspect compares an owned entry with the kernel, and reports whether the
// lease goes on as its state says. One that was at rest stays so until it is due.
func (k *Keeper) inspect(e *entry) bool {
	var resumed bool
	var mtuWas int
	k.update(e, func(*Record) {
		resumed, mtuWas = e.resumed, e.mtuWas
		e.suspect, e.resumed, e.mtuWas = false, false, 0
	})
	r := k.record(e)
	switch {
	case r.State == Kept || r.State == Releasing:
		return true
	case !r.Established:
		// The child may have been made after the intent was stored.
		if c, err := k.host.FindChild(r.NS, r.Child); err == nil && (c.Name == r.Child.Name || c.Name == provision.TemporaryName(r.Spec.MAC)) {
			k.update(e, func(r *Record) { r.Child = c })
		}
		// So may the parent; whoever else needs it takes it over.
		if p, err := k.host.Parent(r.Spec.Parent); err == nil && p.Ours {
			k.update(e, func(r *Record) { r.MadeParent = true })
		}
		if former := k.record(e).Former; former != nil {
			k.undo(e, former)
		} else {
			k.teardown(e, "its attach was interrupted", true)
		}
		return false
	}
	now := k.clock.Now()
	rebooted := r.BootID != k.clock.BootID()
	if r.followed() && (rebooted || !k.host.Alive(r.Target, r.NS)) {
		k.wait(e)
		return false
	}
	if !k.host.Alive(r.Target, r.NS) {
		moved, err := k.host.Moved(r.NS)
		switch {
		case rebooted && r.Pool == nil:
			k.update(e, func(r *Record) {
				e.missing, e.until = true, k.clock.Now()+k.grace
				e.due = k.clock.Now()
			})
			return true
		case (r.Target.Kind == TargetNetNS || r.Pool != nil) && err == nil:
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
	unfinished := err == nil && child.Name == provision.TemporaryName(r.Spec.MAC)
	if unfinished {
		err = k.host.DeleteChild(r.NS, child)
	}
	if errors.Is(err, provision.ErrGone) && !rebooted && !k.host.Alive(r.Target, r.NS) {
		// It ended, or its path came to lead elsewhere, between the two looks.
		k.update(e, func(*Record) { e.suspect, e.resumed, e.mtuWas = true, resumed, mtuWas })
		return k.inspect(e)
	}
	if errors.Is(err, provision.ErrGone) || unfinished && err == nil {
		p, perr := k.host.Parent(r.link())
		withParent := rebooted || unfinished || e.missing || perr != nil || p.Index != r.ParentIndex
		switch {
		case r.Pool != nil && (rebooted || !withParent):
			k.hold(e)
			return false
		case !withParent:
			k.teardown(e, "its interface "+r.Child.Name+" was deleted or moved to another namespace", true)
			return false
		}
		k.miss(e)
		return true
	}
	if err != nil {
		k.note(e, err)
		return e.due <= now
	}
	r = k.update(e, func(r *Record) {
		if child.Parent > 0 {
			r.ParentIndex = child.Parent
		}
	})
	if !rebooted && !k.sameParent(e, child) {
		return true
	}
	name, remade := r.Child.Name, child.Index != r.Child.Index // by a keeper that did not live to note it
	r = k.update(e, func(r *Record) { r.Child = child })
	if mtuWas != 0 {
		if err := k.host.FollowMTU(r.NS, child, mtuWas, r.maxMTU()); err != nil {
			k.note(e, err)
		}
	}
	if r.State.HasAddress() && now >= k.expiry(e) {
		return true
	}
	again := k.repair(e)
	if child.Name != name {
		k.renamed(e, name)
	}
	switch {
	case resumed && !r.State.HasAddress():
		return true
	case resumed && (rebooted || remade || r.State == InitReboot || r.State == Rebooting || r.Binding.Lease != dhcpclient.Infinite && now >= e.bound+r.Binding.T1):
		k.state(e, InitReboot)
		return true
	case resumed:
		k.rest(e)
	}
	if again {
		k.update(e, func(*Record) {
			e.lookBy(e.repairAt)
			e.suspect = true
		})
	}
	return e.due <= now
}

// miss notes that an owned entry's child has to be made again.
func (k *Keeper) miss(e *entry) {
	k.update(e, func(*Record) { e.missing, e.until, e.tries = true, never, 0 })
}

// sameParent follows an owned entry's child to the parent that it hangs on. It
// reports false when that one went to another namespace and there is a new link
// of its name: the child is taken away, to be made again there.
func (k *Keeper) sameParent(e *entry, child provision.Child) bool {
	r := k.record(e)
	p, err := k.host.Parent(r.link())
	switch {
	case child.Parent == 0 && err == nil:
		if err := k.host.DeleteChild(r.NS, child); err != nil {
			k.note(e, err)
			return true
		}
		k.miss(e)
		return false
	case child.Parent == 0:
		k.note(e, fmt.Errorf("parent %s was moved to another namespace", r.link()))
	case err != nil || p.Index != child.Parent: // it was renamed while nobody looked
		if q, err := k.host.ParentAt(child.Parent); err == nil {
			k.parentRenamed(provision.Event{Kind: provision.ParentRenamed, Name: q.Name, OldName: r.link(), Index: r.ParentIndex})
		}
	}
	return true
}

// maxMTU bounds what the child takes of its parent's MTU; 0: nothing does.
func (r *Record) maxMTU() int {
	switch {
	case r.Spec.MTU != 0:
		return r.Spec.MTU
	case r.Binding != nil:
		return int(r.Binding.MTU)
	}
	return 0
}

// heal makes the missing child of an owned entry again, with its name, MAC and,
// if the server agrees, address.
func (k *Keeper) heal(ctx context.Context, e *entry) {
	r := k.record(e)
	now := k.clock.Now()
	if r.followed() && !k.host.Alive(r.Target, r.NS) {
		k.wait(e)
		return
	}
	rebooted := r.BootID != k.clock.BootID()
	if !k.host.Alive(r.Target, r.NS) {
		ns, err := k.host.Again(r.Target, r.NS)
		switch {
		case r.Pool != nil:
			k.hold(e)
			return
		case err == nil && rebooted:
			r = k.update(e, func(r *Record) { r.NS = ns })
		case now >= e.until || !rebooted:
			k.teardown(e, r.Target.Name+" is gone", true)
			return
		default:
			e.due = min(e.until, now+time.Second)
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*exchangeFor)
	defer cancel()
	// A binding that has expired says only which address to ask for.
	expired := func(r *Record) bool { return r.Binding != nil && k.clock.Now() >= e.expiry() }
	var err error
	if !rebooted && !expired(&r) {
		err = k.remake(ctx, e)
	} else if err = k.bringUp(ctx, e, func(string) {}); err == nil {
		k.event(EvHealed, k.record(e), "child made again")
	}
	if err == nil {
		return
	}
	if c := k.record(e).Child; c.Index != r.Child.Index {
		k.host.DeleteChild(r.NS, c)
	}
	var wait *laterError
	k.update(e, func(r *Record) {
		if !e.missing { // it was bound, and failed after that
			e.missing, e.until = true, never
		}
		if r.LastError = oneLine(err); r.Binding == nil || expired(r) {
			r.State = Init
		} else {
			r.State = InitReboot
		}
		e.tries++
		if e.due = k.clock.Now() + backoff(e.tries); errors.As(err, &wait) {
			e.due = k.clock.Now() + wait.wait
		}
	})
}

// laterError is an error that will have passed after the wait.
type laterError struct {
	wait time.Duration
	error
}

func (e *laterError) Unwrap() error { return e.error }

// suspectNow makes an owned entry be looked at again at once.
func (k *Keeper) suspectNow(e *entry) {
	k.update(e, func(*Record) {
		e.due = k.clock.Now() + settleFor
		e.lookBy(e.due)
		e.suspect = true
	})
}
