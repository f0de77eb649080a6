// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// Release gives the lease back, takes the child away and forgets it. What is
// under way for it is cancelled first.
func (k *Keeper) Release(ctx context.Context, id, reason string) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if errors.Is(err, errEnded) {
		return k.endedNow(e), nil
	}
	if err != nil {
		return Record{}, err
	}
	defer release()
	return k.teardown(e, reason, !k.elsewhere(ctx, e)), nil
}

// Keep takes the child away without a DHCPRELEASE. The record stays, for the
// next attach of the identity, until the lease expires.
func (k *Keeper) Keep(ctx context.Context, id string) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if errors.Is(err, errEnded) {
		return k.endedNow(e), nil
	}
	if err != nil {
		return Record{}, err
	}
	defer release()
	if k.record(e).Waiting {
		return k.unwait(e), nil
	}
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
		return r, fmt.Errorf("lease %s of %s can't be renewed: %w", r.ID, r.Spec.Identity, downError(r.Spec.Parent, k.downWhy(r.Spec.Parent)))
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

// endedNow is the record of a lease that ended while it was to be seized: the end of
// an attach that was called off for it, above all.
func (k *Keeper) endedNow(e *entry) Record {
	r := k.record(e)
	r.State = Ended
	return r
}

// seize takes the entry of a lease id. With errEnded it returns the entry, too.
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
	send = send && !k.lapsed(e)
	r := k.update(e, func(r *Record) {
		if r.State != Releasing {
			e.tries = 0
		}
		r.State, r.EndReason, r.Waiting = Releasing, reason, false
		if r.Binding == nil && r.Offered != nil { // granted now at the latest
			r.Binding, e.bound = r.Offered, k.clock.Now()
			r.BoundAt = Moment{BootID: k.clock.BootID(), Boot: e.bound, Wall: k.clock.Wall()}
		}
	})
	k.endVerify(e)
	k.save(e)
	if err := k.dismantle(r, send && r.Binding != nil); err != nil && k.clock.Now() < k.expiry(e) && (r.Binding.Lease != dhcpclient.Infinite || e.tries < maxReleases) {
		if e.tries == 0 {
			k.log.Warn("release put off", "lease", r.ID, "error", err)
		}
		k.update(e, func(r *Record) {
			e.tries++
			r.LastError = oneLine(err)
			e.due = min(k.clock.Now()+backoff(e.tries), e.expiry())
		})
		return k.record(e)
	}
	return k.end(e, reason)
}

// maxReleases bounds the tries to release a lease that never expires: a day's.
const maxReleases = 24 * 60

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

func (k *Keeper) sendRelease(r Record) error {
	if r.Spec.Static.IsValid() {
		return nil
	}
	if why := k.downWhy(r.Spec.Parent); why != "" {
		return downError(r.Spec.Parent, why)
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
	if mac := k.nextHop(r); mac != nil {
		b.NextHopMAC = mac
	}
	conn, err := k.host.FromParent(r.link(), r.Spec.MAC, addr, b.NextHopMAC)
	if err != nil {
		return fmt.Errorf("failed to send the release of %v from parent %s: %w", addr, r.link(), err)
	}
	defer conn.Close()
	c.Conn = conn
	return c.Release(b)
}

// A next hop that a parent looks for is asked for hopTries times.
const (
	hopTries = 2
	hopWait  = 200 * time.Millisecond
)

// nextHop asks from the parent, by ARP, for the MAC of the next hop toward the
// lease's server: it may have changed since the child had it. nil: no answer.
func (k *Keeper) nextHop(r Record) net.HardwareAddr {
	hop := r.Binding.Server
	if !r.Binding.Address.Masked().Contains(hop) {
		hop = r.Binding.Router
	}
	if !hop.Is4() {
		return nil
	}
	arp, _, err := k.host.ParentARP(r.link())
	if err != nil {
		return nil
	}
	defer arp.Close()
	for range hopTries {
		if arp.Probe(hop) != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(k.ctx, hopWait)
		for {
			p, err := arp.Receive(ctx)
			if err != nil {
				break
			}
			if !p.Request && p.SenderIP == hop {
				cancel()
				return p.SenderMAC
			}
		}
		cancel()
	}
	return nil
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
	k.leave(e)
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
	k.leave(e)
	k.mu.Unlock()
	if err := k.store.Delete(e.rec.ID); err != nil {
		k.log.Error("record not dropped", "lease", e.rec.ID, "error", err)
	}
}
