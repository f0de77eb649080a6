// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"time"

	"mvdhcp/provision"
)

// leaving is a parent whose last lease is gone and that can't be removed yet:
// the kernel takes its time to tear down a namespace with a child in it.
type leaving struct {
	tries int
	due   time.Duration
}

// dropParent removes a parent this program made when no other lease is on it.
// One that still has children is tried again by dropLeaving, also by the next
// keeper.
func (k *Keeper) dropParent(r Record) {
	parent := r.Spec.Parent
	var err error
	if !k.passOn(parent, r.ID) {
		err = k.host.RemoveParent(parent)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case errors.Is(err, provision.ErrBusy):
		k.leaving[parent] = leaving{due: k.clock.Now() + settleFor}
		return
	case err != nil && !errors.Is(err, provision.ErrGone):
		k.log.Warn("parent not removed", "parent", parent, "error", err)
	}
	if e := k.leases[r.ID]; e != nil {
		e.rec.MadeParent = false // the caller owns it, and stores it
	}
}

// passOn makes a made parent that of another lease on it, if there is one, or
// leaves it to who else needs it.
func (k *Keeper) passOn(parent, but string) bool {
	if k.parentUsed != nil && k.parentUsed(parent) {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.leases {
		// A pool's lease is Kept until it has moved in, and not given up.
		unused := e.rec.State == Kept && !e.rec.Waiting && (e.rec.Pool == nil || e.rec.Pool.Held())
		if id != but && e.rec.Spec.Parent == parent && !unused {
			e.rec.MadeParent = true
			k.store.PutLater(e.rec)
			return true
		}
	}
	return false
}

// dropLeaving tries again to remove the parents that have no lease any more.
func (k *Keeper) dropLeaving() {
	var due []string
	k.mu.Lock()
	for parent, l := range k.leaving {
		if k.clock.Now() >= l.due {
			due = append(due, parent)
		}
	}
	k.mu.Unlock()
	for _, parent := range due {
		var err error
		if !k.passOn(parent, "") {
			err = k.host.RemoveParent(parent)
		}
		k.mu.Lock()
		if l := k.leaving[parent]; errors.Is(err, provision.ErrBusy) {
			l.tries++
			l.due = k.clock.Now() + backoff(l.tries)
			k.leaving[parent] = l
			k.mu.Unlock()
			continue
		}
		delete(k.leaving, parent)
		for i := range k.ended {
			if k.ended[i].MadeParent && k.ended[i].Spec.Parent == parent {
				k.ended[i].MadeParent = false
				k.store.PutLater(k.ended[i])
			}
		}
		k.mu.Unlock()
		if err != nil && !errors.Is(err, provision.ErrGone) {
			k.log.Warn("parent not removed", "parent", parent, "error", err)
		}
	}
}
