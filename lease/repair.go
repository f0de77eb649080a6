// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"strings"
	"time"

	"mvdhcp/provision"
)

// Bounds of putting back what somebody takes from a child, so that there is no
// fight over it.
const (
	repairFirst = 10 * time.Second // between the first two repairs of a child
	repairMost  = time.Hour
	// maxChanged bounds the children that wait to be compared with the leases.
	maxChanged = 4096
)

// childKey is where a child is. In the host's own namespace nsid is hostNSID,
// whatever id it has for itself.
type childKey struct{ nsid, index int }

// hostNSID is how events call the host's own namespace.
const hostNSID = -1

// change is what the events of one child come to.
type change struct {
	name string // "": not told
	down bool
	lost bool // an address or a route
}

// childChanged notes a change inside a namespace. Changes that come together
// are looked at together.
func (k *Keeper) childChanged(ev provision.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.changed) == 0 {
		k.changedAt = k.clock.Now() + settleFor
		k.poke()
	}
	key := childKey{ev.NSID, ev.Index}
	c := k.changed[key]
	if ev.Name == "" {
		c.lost = true
	} else {
		c.name, c.down = ev.Name, !ev.Up
	}
	if k.changed[key] = c; len(k.changed) >= maxChanged {
		k.lookAtChanged()
	}
}

// lookAtChanged makes the leases suspect whose children changed in a way that
// counts. The lock is held.
func (k *Keeper) lookAtChanged() {
	for _, e := range k.leases {
		r := &e.rec
		key := childKey{r.Child.NSID, r.Child.Index}
		if r.Target.Kind == TargetHost {
			key.nsid = hostNSID
		}
		c, ok := k.changed[key]
		if ok && r.State != Kept && r.State != Releasing && !e.missing && (c.lost || c.down || c.name != "" && c.name != r.Child.Name) {
			k.suspect(e, max(0, e.repairAt-k.clock.Now()))
		}
	}
	clear(k.changed)
}

// repair puts back what somebody took from an owned entry's child: at once, and
// when it happens again, after a while that doubles. It reports whether it has
// to be called again at e.repairAt.
func (k *Keeper) repair(e *entry) (again bool) {
	now := k.clock.Now()
	if now < e.repairAt {
		return true
	}
	r := k.record(e)
	var cfg provision.Config
	if r.State.HasAddress() {
		left := k.expiry(e) - now
		if left < 2*time.Second {
			return false // the kernel takes it off by itself
		}
		cfg = k.wanted(&r, left)
		if r.Target.Kind == TargetHost { // peers that came since are nobody's doing
			k.update(e, func(*Record) { cfg.Routes = e.routes })
		}
	}
	what, err := k.host.Repair(r.NS, r.Child, cfg)
	if err != nil {
		k.note(e, err)
		k.log.Warn("child not repaired", "lease", r.ID, "target", r.Target.Name, "error", err)
	}
	if err == nil && len(what) == 0 {
		return false
	}
	k.repaired(e)
	if len(what) > 0 {
		k.event(EvRepaired, r, "%s of %s changed by hand, put back: %s", r.Child.Name, r.Target.Name, strings.Join(what, ", "))
	}
	return false
}

// repaired doubles the time until the next change of an owned entry's child is
// looked at. A child that was left alone for two hours starts anew.
func (k *Keeper) repaired(e *entry) {
	now := k.clock.Now()
	k.update(e, func(*Record) {
		if now-e.repairAt > 2*repairMost {
			e.repairs = 0
		}
		e.repairAt = now + min(repairFirst<<min(e.repairs, 20), repairMost)
		e.repairs++
	})
}

// renamed follows an owned entry's child to the name that it has now.
func (k *Keeper) renamed(e *entry, old string) {
	r := k.update(e, func(r *Record) { r.Spec.Ifname = r.Child.Name })
	k.save(e)
	k.repaired(e)
	k.hub.emit(Event{
		Time: k.clock.Wall(), Kind: EvChanged, Parent: r.Spec.Parent, Record: r,
		Old: map[string]string{"ifname": old}, New: map[string]string{"ifname": r.Child.Name},
		Message: "interface renamed by hand",
	})
}
