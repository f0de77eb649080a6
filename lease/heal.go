// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"

	"mvdhcp/provision"
)

// remake makes an owned entry's child again, on a parent that is back: with its
// name and MAC and, while the lease has not expired by the keeper's clock, its
// address and routes at once. The server is asked after that, in the lease's
// turn, and its NAK takes the address off.
func (k *Keeper) remake(ctx context.Context, e *entry) error {
	r := k.record(e)
	parent, err := k.parentAgain(e)
	if err != nil {
		return err
	}
	child, err := k.host.CreateChild(ctx, r.NS, provision.ChildSpec{
		Parent: parent, Name: r.Spec.Ifname, MAC: r.Spec.MAC, Mode: r.Spec.Mode, Alias: aliasOf(&r),
	})
	if err != nil {
		return fmt.Errorf("%s: failed to make %s on %s again: %w", r.Target.Name, r.Spec.Ifname, r.Spec.Parent, err)
	}
	r = k.update(e, func(r *Record) {
		r.hangOn(k.clock.BootID(), child, parent)
		if r.Binding != nil {
			r.State = InitReboot
		}
	})
	if r.Binding != nil {
		if err := k.apply(e); err != nil {
			return err
		}
	}
	k.update(e, func(r *Record) {
		e.missing, e.until, e.tries = false, 0, 0
		r.LastError = ""
		e.due = max(e.verifyAt, k.clock.Now())
	})
	k.save(e)
	k.event(EvHealed, k.record(e), "child made again")
	if r.Binding != nil && !k.isDown(r.Spec.Parent) {
		k.startVerify(e)
	}
	return nil
}

// parentAgain finds the parent of a child that went with its parent, or makes it
// if it is a VLAN of ours. A link that is new is left to others to bring up for a
// moment.
func (k *Keeper) parentAgain(e *entry) (p provision.Parent, err error) {
	r := k.record(e)
	p, err = k.host.Parent(r.link())
	k.mu.Lock()
	st := *k.parent(r.Spec.Parent)
	ours := k.ours(r.Spec.Parent)
	k.mu.Unlock()
	switch wait := st.added + raiseAfter - k.clock.Now(); {
	case errors.Is(err, provision.ErrGone) && !ours:
		return p, err
	case err == nil && !p.Up && st.added > 0 && wait > 0:
		return p, &laterError{wait, downError(r.Spec.Parent, "is set down")}
	}
	p, made, err := k.host.EnsureParent(r.Spec.Parent)
	if made {
		k.update(e, func(r *Record) { r.MadeParent = true })
		k.save(e)
	}
	return p, err
}
