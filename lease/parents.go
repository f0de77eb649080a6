// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mvdhcp/provision"
)

// parentState is what the keeper knows of a parent. The keeper's lock guards it.
type parentState struct {
	// down says why leases on it wait; "" while it has a carrier.
	down string
	gone bool
	// since is when it last went up or down, added when a link of its name came.
	since, added time.Duration
	// flaps counts how often it went down shortly after it came up.
	flaps  int
	server netip.Addr // that served a lease on it last
}

// Bounds of what follows from a parent's ups and downs.
const (
	// flapWithin makes a parent that goes down so soon after it came up a
	// flapping one, flapHold is the most its leases wait for then.
	flapWithin = 10 * time.Second
	flapHold   = 5 * time.Second
	// raiseAfter is how long others have to bring a parent up that is new, before
	// the keeper does.
	raiseAfter = 3 * time.Second
)

// parent is the state of a parent, made when it is new. The lock is held.
func (k *Keeper) parent(name string) *parentState {
	st := k.parents[name]
	if st == nil {
		st = &parentState{since: k.clock.Now()}
		k.parents[name] = st
	}
	return st
}

// link is the name of the link that is the lease's parent.
func (r *Record) link() string {
	if r.ParentLink != "" {
		return r.ParentLink
	}
	return r.Spec.Parent
}

// hangOn enters a child and its parent, as they are now, into the record.
func (r *Record) hangOn(bootID string, c provision.Child, p provision.Parent) {
	r.Child, r.BootID, r.ParentIndex, r.OurParent = c, bootID, p.Index, p.Ours
	if r.ParentLink = ""; p.Name != r.Spec.Parent {
		r.ParentLink = p.Name // a VLAN that has another name
	}
}

// on reports whether the lease's parent is the link of an event.
func (k *Keeper) on(r *Record, ev provision.Event) bool {
	return r.link() == ev.Name || r.Spec.Parent == ev.Name || ev.Index > 0 && r.ParentIndex == ev.Index && r.BootID == k.clock.BootID()
}

// affected are the names by which leases call an event's link. The lock is held.
func (k *Keeper) affected(ev provision.Event) (names []string) {
	for _, e := range k.leases {
		if p := e.rec.Spec.Parent; e.rec.State != Kept && k.on(&e.rec, ev) && !slices.Contains(names, p) {
			names = append(names, p)
		}
	}
	return names
}

// downWhy says why leases on the parent wait, "" if they don't.
func (k *Keeper) downWhy(parent string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if st := k.parents[parent]; st != nil {
		return st.down
	}
	return ""
}

func (k *Keeper) isDown(parent string) bool { return k.downWhy(parent) != "" }

// unusableParent is a provision.ErrInvalid that says why, and what to do.
type unusableParent string

func (e unusableParent) Error() string { return string(e) }
func (e unusableParent) Unwrap() error { return provision.ErrInvalid }

func noCarrier(parent string) error {
	return unusableParent(fmt.Sprintf("parent %s has no carrier: check its cable or switch port", parent))
}

// errDown is wrapped by errors about a parent that can carry nothing now.
var errDown = errors.New("check its cable or switch port, or bring it up")

func downError(parent, why string) error { return fmt.Errorf("parent %s %s: %w", parent, why, errDown) }

// CheckParent fails at once, with the reason, when an exchange on the parent
// could only time out: it has had no carrier for a while, or was set down under
// leases that wait for it.
func (k *Keeper) CheckParent(name string) error {
	k.mu.Lock()
	st := k.parents[name]
	if st == nil || st.down == "" {
		k.mu.Unlock()
		return nil
	}
	n, since, link := 0, st.since, name
	for _, e := range k.leases {
		if e.rec.Spec.Parent == name && e.rec.Established && e.rec.State != Kept {
			n, link = n+1, e.rec.link()
		}
	}
	k.mu.Unlock()
	p, err := k.host.Parent(link)
	switch {
	case err != nil:
		if n == 0 {
			k.forgetGone(name)
		}
		return nil // who asks for it says that
	case p.Carrier:
		k.parentUp(provision.Event{Kind: provision.ParentUp, Name: name, Index: p.Index})
	case !p.Up && n > 0:
		return unusableParent(fmt.Sprintf("parent %s is set down, and %s: bring it up with `ip link set %s up`", name, leases(n, "on it wait"), link))
	case p.Up && k.clock.Now()-since >= carrierWait:
		return noCarrier(name)
	}
	return nil
}

// forgetGone forgets a parent that is gone: what is made in its place, or found
// under another name, is another one.
func (k *Keeper) forgetGone(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if st := k.parents[name]; st != nil && st.gone {
		delete(k.parents, name)
	}
}

// noCarrier remembers a parent that was waited for in vain, until it is up.
func (k *Keeper) noCarrier(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if st := k.parent(name); st.down == "" {
		st.down, st.since = "has no carrier", k.clock.Now()-carrierWait
	}
}

// parentDown makes the leases on the link wait.
func (k *Keeper) parentDown(ev provision.Event) {
	kind, why := EvParentDown, "has no carrier"
	if ev.Kind == provision.ParentGone {
		kind, why = EvParentGone, "is gone"
	} else if p, err := k.host.Parent(ev.Name); err == nil && !p.Up {
		why = "is set down"
	}
	k.mu.Lock()
	names := k.affected(ev)
	if len(names) == 0 && ev.Kind == provision.ParentGone {
		delete(k.parents, ev.Name)
	}
	now := k.clock.Now()
	var told []string
	for _, name := range names {
		st := k.parent(name)
		if st.down == "" {
			if st.flaps++; now-st.since > flapWithin {
				st.flaps = 0
			}
			st.since = now
		}
		if st.down != why {
			told = append(told, fmt.Sprintf("parent %s %s: %s", name, why, leases(k.users(name), "wait")))
		}
		st.down, st.gone = why, ev.Kind == provision.ParentGone
	}
	k.mu.Unlock()
	for i, text := range told {
		k.hub.emit(Event{Time: k.clock.Wall(), Kind: kind, Parent: names[i], Message: text})
	}
	if ev.Kind == provision.ParentGone {
		// Children go with it, unless it went to another namespace.
		k.suspects(func(r *Record) bool { return k.on(r, ev) }, settleFor)
	}
}

// parentUp verifies every lease on the link, one each pace, and makes children
// that are missing again at once. A parent that flaps is given time to stay up.
func (k *Keeper) parentUp(ev provision.Event) {
	k.mu.Lock()
	now := k.clock.Now()
	var told []Event
	names := k.affected(ev)
	for _, name := range names {
		st := k.parent(name)
		if st.down != "" {
			st.since = now
		}
		st.down, st.gone = "", false
		start := now
		if st.flaps > 0 {
			start += min(settleFor<<min(st.flaps, 10), flapHold)
		}
		n := 0
		for _, e := range k.leases {
			if e.rec.Spec.Parent == name && e.rec.State != Kept && (e.rec.Established || e.rec.State == Releasing) {
				k.verifyAt(e, start, start+time.Duration(n)*pace)
				n++
			}
		}
		if n > 0 {
			told = append(told, Event{Time: k.clock.Wall(), Kind: EvParentUp, Parent: name, Message: fmt.Sprintf("parent %s is up: verifying %s", name, leases(n, ""))})
		}
	}
	if len(names) == 0 {
		delete(k.parents, ev.Name)
	}
	k.mendTrunk(ev.Name, now)
	k.mu.Unlock()
	k.poke()
	for _, e := range told {
		k.hub.emit(e)
	}
}

// verifyAt has a lease verified at a moment, and its child made again at start
// if it is missing. One that is busy is verified when it is free. The lock is
// held.
func (k *Keeper) verifyAt(e *entry, start, at time.Duration) {
	if e.op != nil {
		e.again = true
		return
	}
	e.verifyAt = at
	switch {
	case e.missing:
		e.tries = 0
		at = start
	case e.rec.State.HasAddress():
		e.rec.State, e.tries = InitReboot, 0
	}
	e.due = at
	k.schedule(e)
}

// parentAdded takes up a link that has the name of a parent that was gone.
func (k *Keeper) parentAdded(ev provision.Event) {
	k.mu.Lock()
	now := k.clock.Now()
	for _, name := range k.affected(ev) {
		st := k.parent(name)
		if st.added = now; st.gone {
			st.gone, st.down = false, "is set down"
		}
		for _, e := range k.leases {
			if e.rec.Spec.Parent != name || !e.rec.Established || e.rec.State == Kept {
				continue
			}
			if e.missing && e.op == nil && !e.suspect {
				e.tries, e.due = 0, now+raiseAfter
				k.schedule(e)
			} else if e.rec.ParentIndex != ev.Index {
				k.suspect(e, settleFor) // its child may hang on a link that moved away
			}
		}
	}
	k.mendTrunk(ev.Name, now+raiseAfter)
	k.mu.Unlock()
	k.poke()
}

// mendTrunk lets leases whose VLAN is missing make it again on its trunk. The
// lock is held.
func (k *Keeper) mendTrunk(trunk string, at time.Duration) {
	for _, e := range k.leases {
		if e.missing && e.op == nil && strings.HasPrefix(e.rec.Spec.Parent, trunk+".") && k.ours(e.rec.Spec.Parent) {
			e.tries, e.due = 0, at
			k.schedule(e)
		}
	}
}

// ours reports whether the parent is one that this program makes. The lock is held.
func (k *Keeper) ours(parent string) bool {
	for _, e := range k.leases {
		if r := &e.rec; r.Spec.Parent == parent && (r.MadeParent || r.OurParent) {
			return true
		}
	}
	return false
}

// parentRenamed has the leases follow the link to its new name.
func (k *Keeper) parentRenamed(ev provision.Event) {
	k.mu.Lock()
	n := 0
	for _, e := range k.leases {
		r := &e.rec
		if r.ParentIndex != ev.Index || r.BootID != k.clock.BootID() {
			continue
		}
		if r.ParentLink != "" {
			r.ParentLink = ev.Name
		} else {
			if st := k.parents[r.Spec.Parent]; st != nil {
				copied := *st
				k.parents[ev.Name] = &copied
			}
			r.Spec.Parent = ev.Name
			if r.Target.Kind == TargetHost {
				r.Target.Name = HostTarget(ev.Name)
			}
		}
		k.store.PutLater(*r)
		n++
	}
	if n > 0 && k.users(ev.OldName) == 0 {
		delete(k.parents, ev.OldName)
	}
	k.mu.Unlock()
	if n > 0 {
		k.hub.emit(Event{
			Time: k.clock.Wall(), Kind: EvParentRenamed, Parent: ev.Name, Old: map[string]string{"name": ev.OldName}, New: map[string]string{"name": ev.Name},
			Message: fmt.Sprintf("parent %s is called %s now: %s", ev.OldName, ev.Name, leases(n, "follow")),
		})
	}
	k.parentAdded(ev)
}

// parentChanged reports another MTU or MAC. Children whose parent's MTU was
// raised are raised with it; the kernel has lowered them by itself.
func (k *Keeper) parentChanged(ev provision.Event) {
	old, now := map[string]string{}, map[string]string{}
	field := func(name, a, b string) {
		if a != b {
			old[name], now[name] = a, b
		}
	}
	field("mtu", fmt.Sprint(ev.OldMTU), fmt.Sprint(ev.MTU))
	field("mac", ev.OldMAC.String(), ev.MAC.String())
	k.mu.Lock()
	names := k.affected(ev)
	n := 0
	for _, e := range k.leases {
		if ev.MTU > ev.OldMTU && e.rec.State != Kept && e.rec.State != Releasing && k.on(&e.rec, ev) {
			if e.mtuWas == 0 {
				e.mtuWas = ev.OldMTU
			}
			k.suspect(e, settleFor+time.Duration(n)*time.Millisecond)
			n++
		}
	}
	k.mu.Unlock()
	k.poke()
	for _, name := range names {
		k.hub.emit(Event{Time: k.clock.Wall(), Kind: EvParentChanged, Parent: name, Old: old, New: now, Message: "parent " + name + " changed; children keep their own MAC"})
	}
}

// lookAtParents reads the state of every parent anew, after events were lost.
func (k *Keeper) lookAtParents() {
	type look struct {
		r   Record
		was parentState
	}
	all := map[string]look{}
	k.mu.Lock()
	for _, e := range k.leases {
		if r := &e.rec; r.State != Kept {
			if l, ok := all[r.Spec.Parent]; !ok || l.r.ParentIndex == 0 {
				all[r.Spec.Parent] = look{*r, *k.parent(r.Spec.Parent)}
			}
		}
	}
	k.mu.Unlock()
	for _, l := range all {
		p, err := k.findParent(&l.r)
		ev := provision.Event{Name: l.r.Spec.Parent, Index: p.Index}
		switch {
		case err != nil:
			if ev.Kind = provision.ParentGone; !l.was.gone {
				k.parentDown(ev)
			}
		case l.r.ParentLink == "" && p.Name != l.r.Spec.Parent:
			k.parentRenamed(provision.Event{Kind: provision.ParentRenamed, Name: p.Name, OldName: l.r.Spec.Parent, Index: p.Index})
			if ev.Name = p.Name; p.Carrier {
				k.parentUp(ev)
			}
		case !p.Carrier:
			if ev.Kind = provision.ParentDown; l.was.down == "" || l.was.gone {
				k.parentDown(ev)
			}
		case l.was.down != "":
			k.parentUp(ev)
		}
	}
}

// findParent finds the link that is the lease's parent by its name or, where
// that is gone, by its index.
func (k *Keeper) findParent(r *Record) (provision.Parent, error) {
	p, err := k.host.Parent(r.link())
	if err != nil && r.ParentIndex > 0 && r.BootID == k.clock.BootID() {
		if q, qerr := k.host.ParentAt(r.ParentIndex); qerr == nil {
			return q, nil
		}
	}
	return p, err
}

// users counts the leases on a parent. The lock is held.
func (k *Keeper) users(parent string) (n int) {
	for _, e := range k.leases {
		if e.rec.Spec.Parent == parent && e.rec.State != Kept {
			n++
		}
	}
	return n
}

// leases says that n leases do something, or how many they are.
func leases(n int, do string) string {
	switch {
	case n == 1 && do != "":
		return "1 lease " + do + "s"
	case n == 1:
		return "1 lease"
	}
	return strings.TrimSpace(fmt.Sprintf("%d leases %s", n, do))
}
