// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"time"

	"mvdhcp/provision"
)

// Observe takes an event of the kernel. It waits for no lease and no packet.
func (k *Keeper) Observe(ev provision.Event) {
	switch ev.Kind {
	case provision.ParentDown, provision.ParentGone:
		k.parentDown(ev)
		if ev.Kind == provision.ParentGone { // or a child in the host's own namespace
			k.suspects(func(r *Record) bool { return r.Target.Kind == TargetHost && r.Child.Index == ev.Index }, settleFor)
		}
	case provision.ParentUp:
		k.parentUp(ev)
	case provision.ParentAdded:
		k.parentAdded(ev)
	case provision.ParentRenamed:
		k.parentRenamed(ev)
	case provision.ParentChanged:
		k.parentChanged(ev)
	case provision.ChildGone:
		k.suspects(func(r *Record) bool { return r.Child.NSID == ev.NSID && r.Child.Index == ev.Index }, settleFor)
	case provision.ChildChanged:
		k.childChanged(ev)
	case provision.NamespaceGone:
		k.suspects(func(r *Record) bool { return r.Child.NSID == ev.NSID }, 0)
	case provision.Resync:
		k.lookAtParents()
		k.suspects(func(*Record) bool { return true }, settleFor)
	}
}

// Sweep looks for targets that ended without an event: a process whose
// namespace lives on, a namespace whose name was taken away. An attach to such a
// target is called off. It also tries again
// what waits for the kernel, as the removal of a parent does, and sees to it that
// every parent with leases is listened to.
func (k *Keeper) Sweep() {
	type look struct {
		e  *entry
		t  Target
		ns provision.Namespace
	}
	var all []look
	k.mu.Lock()
	for _, e := range k.leases {
		if s := e.rec.State; s != Kept && s != Releasing && !(e.missing && e.until != never) && !e.resumed && (e.rec.Established || e.rec.Pool == nil) {
			all = append(all, look{e, e.rec.Target, e.rec.NS})
		}
	}
	k.mu.Unlock()
	for _, l := range all {
		if !k.host.Alive(l.t, l.ns) {
			k.mu.Lock()
			if !l.e.rec.Established && l.e.op != nil {
				l.e.op.cancel()
			}
			k.suspect(l.e, 0)
			k.mu.Unlock()
			k.poke()
		}
	}
	k.dropLeaving()
	k.watchParents()
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

// suspect makes an entry be looked at after wait. An exchange under way for a
// target that is gone is called off: its sockets would keep the namespace from
// being freed. The lock is held.
func (k *Keeper) suspect(e *entry, wait time.Duration) {
	if !e.rec.Established {
		return // its attach will find out
	}
	e.lookBy(k.clock.Now() + wait)
	e.suspect = true
	switch {
	case e.op == nil:
		k.schedule(e)
	case !k.host.Alive(e.rec.Target, e.rec.NS):
		e.op.cancel()
	}
}
