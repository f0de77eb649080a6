// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// keptDue is when a kept entry is to be looked at next: at its end or, when it is
// held for longer than it is leased, at T1.
func (k *Keeper) keptDue(e *entry) time.Duration {
	at, _ := k.keptUntil(e)
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := &e.rec; r.Pool.Held() && r.Pool.Delay >= 0 && at == e.expiry() && at != never {
		return e.bound + r.Binding.T1
	}
	return at
}

// refresh renews an owned entry that is held for longer than it is leased, once
// its T1 has passed, from a child that is gone when it returns, and sets what is
// due next.
func (k *Keeper) refresh(ctx context.Context, e *entry) {
	now := k.clock.Now()
	if e.due = k.keptDue(e); now < e.due {
		return
	}
	old := k.record(e)
	err := k.isDownError(old.Spec.Parent)
	if err == nil {
		err = k.verifyHeld(ctx, e, &old)
	}
	// The child was borrowed; what was granted and found out of the parent stays.
	r := k.update(e, func(r *Record) {
		r.State, r.NS, r.Child, r.Offered = old.State, old.NS, old.Child, nil
		if err != nil {
			r.LastError = oneLine(err)
			e.due = now + retry(e.expiry()-now, r.Binding.Lease)
			return
		}
		r.Renewals, r.LastError = r.Renewals+1, ""
	})
	k.save(e)
	if err == nil {
		e.due = k.keptDue(e)
		k.event(EvRenewed, r, "held lease renewed")
	}
}

// verifyHeld asks the server to go on with the held lease (INIT-REBOOT).
func (k *Keeper) verifyHeld(ctx context.Context, e *entry, old *Record) error {
	ctx, cancel := context.WithTimeout(ctx, extendFor)
	defer cancel()
	ns, closeNS, err := k.host.TempNamespace()
	if err != nil {
		return err
	}
	defer closeNS()
	k.update(e, func(r *Record) {
		r.NS, r.Child = ns, provision.Child{Name: r.Spec.Ifname, MAC: r.Spec.MAC, NSID: -1}
	})
	if err = k.borrow(ctx, e, old, func(string) {}); err == nil && k.record(e).Binding == old.Binding {
		err = dhcpclient.ErrNoAnswer
	}
	if err != nil {
		if derr := k.host.DeleteChild(ns, k.record(e).Child); derr != nil && !errors.Is(derr, provision.ErrGone) {
			k.log.Warn("child not deleted", "lease", old.ID, "error", derr)
		}
	}
	return err
}

func (k *Keeper) isDownError(parent string) error {
	if why := k.downWhy(parent); why != "" {
		return downError(parent, why)
	}
	return nil
}
