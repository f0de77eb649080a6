// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"time"

	"mvdhcp/provision"
)

// Observe takes an event of the kernel. It waits for no lease and no packet.
func (k *Keeper) Observe(ev provision.Event) {
	switch ev.Kind {
	case provision.ParentDown, provision.ParentGone:
		k.parentDown(ev)
	case provision.ParentUp:
		k.parentUp(ev.Name)
	case provision.ChildGone:
		k.suspects(func(r *Record) bool { return r.Child.NSID == ev.NSID && r.Child.Index == ev.Index }, settleFor)
	case provision.NamespaceGone:
		k.suspects(func(r *Record) bool { return r.Child.NSID == ev.NSID }, 0)
	case provision.Resync:
		k.lookAtParents()
		k.suspects(func(*Record) bool { return true }, settleFor)
	}
}

// lookAtParents reads the state of every parent anew, after events were lost.
func (k *Keeper) lookAtParents() {
	names := map[string]bool{}
	k.mu.Lock()
	for _, e := range k.leases {
		names[e.rec.Spec.Parent] = k.down[e.rec.Spec.Parent]
	}
	k.mu.Unlock()
	for name, was := range names {
		p, err := k.host.Parent(name)
		switch down := err != nil || !p.Carrier; {
		case down && !was:
			k.parentDown(provision.Event{Kind: provision.ParentDown, Name: name})
		case !down && was:
			k.parentUp(name)
		}
	}
}

// Sweep looks for targets that ended without an event: a process whose
// namespace lives on, a namespace whose name was taken away.
func (k *Keeper) Sweep() {
	type look struct {
		e  *entry
		t  Target
		ns provision.Namespace
	}
	var all []look
	k.mu.Lock()
	for _, e := range k.leases {
		if s := e.rec.State; s != Kept && s != Releasing && !e.missing && !e.suspect && e.rec.Established {
			all = append(all, look{e, e.rec.Target, e.rec.NS})
		}
	}
	k.mu.Unlock()
	for _, l := range all {
		if !k.host.Alive(l.t, l.ns) {
			k.mu.Lock()
			k.suspect(l.e, 0)
			k.mu.Unlock()
			k.poke()
		}
	}
}

// suspects marks the entries that match.
func (k *Keeper) suspects(match func(*Record) bool, wait time.Duration) {
	k.mu.Lock()
	for _, e := range k.leases {
		if s := e.rec.State; s != Kept && s != Releasing && match(&e.rec) {
			k.suspect(e, wait)
		}
	}
	k.mu.Unlock()
	k.poke()
}

// suspect makes an entry be looked at after wait. The lock is held.
func (k *Keeper) suspect(e *entry, wait time.Duration) {
	if !e.rec.Established {
		return // its attach will find out
	}
	e.suspect = true
	if e.op == nil {
		k.due.set(e, min(e.due, k.clock.Now()+wait))
	}
}

func (k *Keeper) parentDown(ev provision.Event) {
	kind, what := EvParentDown, "is down"
	if ev.Kind == provision.ParentGone {
		kind, what = EvParentGone, "is gone"
	}
	k.mu.Lock()
	n := k.users(ev.Name)
	if n > 0 {
		k.down[ev.Name] = true
	}
	k.mu.Unlock()
	if n > 0 {
		k.hub.emit(Event{Time: k.clock.Wall(), Kind: kind, Parent: ev.Name, Message: fmt.Sprintf("parent %s %s: %d leases wait", ev.Name, what, n)})
	}
}

// parentUp verifies every lease on the parent, one each pace.
func (k *Keeper) parentUp(name string) {
	k.mu.Lock()
	delete(k.down, name)
	n, now := 0, k.clock.Now()
	for _, e := range k.leases {
		if e.rec.Spec.Parent != name || e.rec.State == Kept || !e.rec.Established || e.op != nil {
			continue
		}
		if e.rec.State.HasAddress() && !e.missing {
			e.rec.State = InitReboot
		}
		k.due.set(e, now+time.Duration(n)*pace)
		n++
	}
	k.mu.Unlock()
	if n > 0 {
		k.poke()
		k.hub.emit(Event{Time: k.clock.Wall(), Kind: EvParentUp, Parent: name, Message: fmt.Sprintf("parent %s is up: verifying %d leases", name, n)})
	}
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
