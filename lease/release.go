// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// Release gives the lease back, takes the child away and forgets it. What is
// under way for it is cancelled first.
func (k *Keeper) Release(ctx context.Context, id, reason string) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return Record{}, err
	}
	defer release()
	return k.teardown(e, reason, true), nil
}

// Keep takes the child away without a DHCPRELEASE. The record stays, for the
// next attach of the identity, until the lease expires.
func (k *Keeper) Keep(ctx context.Context, id string) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return Record{}, err
	}
	defer release()
	if !k.record(e).State.HasAddress() {
		return k.teardown(e, "detached without an address", true), nil
	}
	return k.keep(e), nil
}

// Renew asks the server now: over UDP where the lease is bound, from DISCOVER
// on where it has no address.
func (k *Keeper) Renew(ctx context.Context, id string) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return Record{}, err
	}
	defer release()
	r := k.record(e)
	switch {
	case r.State == Kept || r.State == Releasing:
		return r, fmt.Errorf("lease %s of %s is %s: attach it first", r.ID, r.Spec.Identity, r.State)
	case k.isDown(r.Spec.Parent):
		return r, fmt.Errorf("lease %s of %s can't be renewed: parent %s is down", r.ID, r.Spec.Identity, r.Spec.Parent)
	case !r.State.HasAddress():
		k.restart(ctx, e)
		if r = k.record(e); r.State != Bound {
			return r, fmt.Errorf("lease of %s: %s: %w", r.Spec.Identity, r.LastError, dhcpclient.ErrNoAnswer)
		}
		return r, nil
	}
	now := k.clock.Now()
	b, err := k.ask(ctx, e, Renewing)
	switch {
	case err == nil:
		k.extended(e, b, now, EvRenewed)
	case isNAK(err):
		k.answered(e, err)
	case errors.Is(err, provision.ErrGone):
		k.suspectNow(e)
	default:
		k.note(e, err)
	}
	if err != nil {
		err = fmt.Errorf("failed to renew %v of %s: %w", r.Binding.Address.Addr(), r.Spec.Identity, err)
	}
	return k.record(e), err
}

// seize takes the entry of a lease id.
func (k *Keeper) seize(ctx context.Context, id string) (*entry, func(), error) {
	k.mu.Lock()
	e := k.leases[id]
	k.mu.Unlock()
	if e == nil {
		return nil, nil, fmt.Errorf("no lease %s", id)
	}
	_, release, err := k.own(ctx, e, true)
	return e, release, err
}

// teardown gives an owned entry's lease back and ends it. When the RELEASE can't
// be sent now, the lease stays Releasing and is tried again until it expires.
func (k *Keeper) teardown(e *entry, reason string, send bool) Record {
	r := k.update(e, func(r *Record) {
		r.State, r.EndReason = Releasing, reason
		if r.Binding == nil {
			r.Binding = r.Offered
		}
	})
	k.endVerify(e)
	k.save(e)
	if err := k.dismantle(r, send && r.Binding != nil); err != nil && k.clock.Now() < min(k.expiry(e), e.bound+endedFor) {
		k.update(e, func(r *Record) {
			e.tries++
			r.LastError = oneLine(err)
			e.due = k.clock.Now() + backoff(e.tries)
		})
		k.log.Warn("release put off", "lease", r.ID, "error", err)
		return k.record(e)
	}
	return k.end(e, reason)
}

// dismantle takes away what a record has in the kernel, and sends its RELEASE
// from the child while that is there, from the parent with its MAC and address
// when it is gone. The error is that of the RELEASE; the rest is best effort
// and logged.
func (k *Keeper) dismantle(r Record, send bool) error {
	k.restoreDNS(r)
	var err error
	if send {
		err = k.sendRelease(r)
	}
	if derr := k.host.DeleteChild(r.NS, r.Child); derr != nil && !errors.Is(derr, provision.ErrGone) {
		k.log.Error("child not deleted", "lease", r.ID, "target", r.Target.Name, "ifname", r.Child.Name, "error", derr)
	}
	if r.MadeParent && err == nil {
		k.dropParent(r)
	}
	return err
}

// dropParent removes a parent this program made when no other lease is on it.
func (k *Keeper) dropParent(r Record) {
	k.mu.Lock()
	for id, e := range k.leases {
		if id != r.ID && e.rec.Spec.Parent == r.Spec.Parent && e.rec.State != Kept {
			e.rec.MadeParent = true // it is the last one's now
			k.store.PutLater(e.rec)
			k.mu.Unlock()
			return
		}
	}
	k.mu.Unlock()
	if err := k.host.RemoveParent(r.Spec.Parent); err != nil && !errors.Is(err, provision.ErrGone) {
		k.log.Warn("parent not removed", "parent", r.Spec.Parent, "error", err)
	}
}

func (k *Keeper) sendRelease(r Record) error {
	if k.isDown(r.Spec.Parent) {
		return fmt.Errorf("parent %s is down", r.Spec.Parent)
	}
	b := *r.Binding
	addr := b.Address.Addr()
	c := dhcpclient.Client{Params: r.request(), Log: k.log}
	if child, err := k.host.FindChild(r.NS, r.Child); err == nil {
		if mac, err := k.host.Neighbour(r.NS, child, b.Server); err == nil && mac != nil {
			b.NextHopMAC = mac
		}
		if c.Conn, err = k.host.Packet(r.NS, child, addr, b.NextHopMAC); err == nil {
			err = c.Release(b)
			c.Conn.Close()
			if err == nil {
				return nil
			}
		}
		k.log.Debug("release from the child failed, sending it from the parent", "lease", r.ID, "error", err)
	}
	conn, err := k.host.FromParent(r.Spec.Parent, r.Spec.MAC, addr, b.NextHopMAC)
	if err != nil {
		return fmt.Errorf("failed to send the release of %v from parent %s: %w", addr, r.Spec.Parent, err)
	}
	defer conn.Close()
	c.Conn = conn
	return c.Release(b)
}

// keep turns an owned entry into a kept one.
func (k *Keeper) keep(e *entry) Record {
	k.endVerify(e)
	k.dismantle(k.record(e), false)
	r := k.update(e, func(r *Record) {
		r.State, r.Resolv = Kept, nil
		e.missing, e.suspect, e.tries = false, false, 0
	})
	e.due = k.expiry(e)
	k.save(e)
	k.event(EvKept, r, "lease kept without a child")
	return r
}

// end moves an owned entry to the ended leases.
func (k *Keeper) end(e *entry, reason string) Record {
	r := k.update(e, func(r *Record) {
		r.State, r.EndReason, r.EndedAt = Ended, reason, k.clock.Wall()
		r.Resolv, r.Offered = nil, nil
	})
	k.save(e)
	var drop []string
	k.mu.Lock()
	k.due.drop(e)
	delete(k.leases, r.ID)
	k.ended = append(k.ended, r)
	drop = k.pruneEnded()
	k.mu.Unlock()
	for _, id := range drop {
		if err := k.store.Delete(id); err != nil {
			k.log.Error("ended lease not dropped", "lease", id, "error", err)
		}
	}
	k.event(EvReleased, r, "lease ended: %s", reason)
	return r
}

// pruneEnded forgets what ended too long ago. The lock is held.
func (k *Keeper) pruneEnded() (ids []string) {
	old := k.clock.Wall().Add(-endedFor)
	for len(k.ended) > 0 && (len(k.ended) > maxEnded || k.ended[0].EndedAt.Before(old)) {
		ids = append(ids, k.ended[0].ID)
		k.ended = k.ended[1:]
	}
	return ids
}

// forget drops an owned entry without a trace.
func (k *Keeper) forget(e *entry) {
	k.mu.Lock()
	k.due.drop(e)
	delete(k.leases, e.rec.ID)
	k.mu.Unlock()
	if err := k.store.Delete(e.rec.ID); err != nil {
		k.log.Error("record not dropped", "lease", e.rec.ID, "error", err)
	}
}
