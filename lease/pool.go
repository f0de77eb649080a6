// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
)

// Pool is what a lease that was taken for an address pool carries: its child is
// made, and taken away, by somebody else.
type Pool struct {
	ID string `json:"id"`
	// Delay is how long the lease is held after its address was given up, so
	// that a restart finds it again. Negative: until it expires.
	Delay time.Duration `json:"delay"`
	// Bits is the prefix length that the pool's owner puts on addresses; 0: the
	// server's.
	Bits int `json:"bits,omitempty"`
	// Named is set when the identity follows from a name that stays the same.
	Named bool `json:"named,omitempty"`
	// Answered is the address that the pool's owner was told, by which it gives
	// it up, whatever the lease's address is then.
	Answered netip.Addr `json:"answered,omitzero"`
	// Router is set once the default route through the lease's router was found
	// on the child and taken over.
	Router bool `json:"router,omitempty"`
	// ReleaseAt is when the held lease is released; zero while it is in use.
	ReleaseAt Moment `json:"release_at,omitzero"`
	// Network is the name of what the pool belongs to, once it is known.
	Network string `json:"network,omitempty"`
	// FixedMAC is set when the MAC was chosen for what the lease belongs to,
	// which asks with it again and with no other.
	FixedMAC bool `json:"fixed_mac,omitempty"`
	// Endpoint is the engine's id of what the keeper made the child for; empty
	// where somebody else makes the child. Sandbox is the path of the namespace
	// it was joined to, which may be made later.
	Endpoint string `json:"endpoint,omitempty"`
	Sandbox  string `json:"sandbox,omitempty"`
}

// Held reports whether the address was given up and waits for its release.
func (p *Pool) Held() bool { return p != nil && p.ReleaseAt.BootID != "" }

// PoolLeases returns the leases of a pool; "" is every pool.
func (k *Keeper) PoolLeases(pool string) (vs []View) {
	for _, v := range k.Leases("", false) {
		if v.Pool != nil && (pool == "" || v.Pool.ID == pool) {
			vs = append(vs, v)
		}
	}
	return vs
}

// GiveUp holds the pool's lease that was answered with the address back for its
// delay, after which it is released. It does nothing for an address that the
// pool has not answered with.
func (k *Keeper) GiveUp(ctx context.Context, pool string, addr netip.Addr) error {
	var of []View
	for _, v := range k.PoolLeases(pool) {
		if v.Pool.Answered == addr && !v.Pool.Held() {
			of = append(of, v)
		}
	}
	for _, v := range of {
		// A lease can have lost the address since to one that was answered
		// with it later: then the one without a child is meant.
		if len(of) > 1 && v.State != Kept {
			if _, err := k.host.FindChild(v.NS, v.Child); err == nil {
				continue
			}
		}
		e, release, err := k.seize(ctx, v.ID)
		if err != nil {
			return err
		}
		if r := k.record(e); !r.Pool.Held() && r.Pool.Answered == addr {
			k.hold(e)
		}
		release()
	}
	return nil
}

// hold turns an owned entry of a pool into a held one.
func (k *Keeper) hold(e *entry) {
	k.endVerify(e)
	if k.record(e).Binding == nil {
		k.teardown(e, "given up without an address", true)
		return
	}
	now := k.clock.Now()
	r := k.update(e, func(r *Record) {
		pool := *r.Pool
		at := e.expiry()
		if pool.Delay >= 0 {
			at = now + pool.Delay
		}
		pool.ReleaseAt, pool.Router = Moment{BootID: k.clock.BootID(), Boot: at, Wall: k.clock.Wall().Add(at - now)}, false
		r.State, r.Pool = Kept, &pool
		e.missing, e.suspect, e.tries = false, false, 0
	})
	e.due = k.keptDue(e)
	k.save(e)
	if r.Pool.Delay < 0 {
		k.event(EvKept, r, "address given up, held until it expires")
		return
	}
	k.event(EvKept, r, "address given up, held for %v", r.Pool.Delay)
}

// keptUntil is when a kept entry's time is over, and whether it is released then.
func (k *Keeper) keptUntil(e *entry) (at time.Duration, release bool) {
	k.mu.Lock()
	p := e.rec.Pool
	k.mu.Unlock()
	at = k.expiry(e)
	if !p.Held() || p.Delay < 0 {
		return at, false
	}
	due := p.ReleaseAt.Boot
	if p.ReleaseAt.BootID != k.clock.BootID() {
		due = k.clock.Now() + p.ReleaseAt.Wall.Sub(k.clock.Wall())
	}
	return min(at, due), due < at
}

// askedFor is how long an answer to an ARP probe is waited for before a held
// address is released.
const askedFor = 500 * time.Millisecond

// takenOver reports who has a held entry's address by now: another lease, or
// somebody on the LAN who answers for it. Releasing it would take it from them.
func (k *Keeper) takenOver(ctx context.Context, e *entry) (by string, taken bool) {
	r := k.record(e)
	addr := r.Binding.Address.Addr()
	if by, taken = k.holder(e, r.Spec.Parent, addr); taken || r.Spec.Conflict == dhcpclient.ConflictOff || k.isDown(r.Spec.Parent) {
		return by, taken
	}
	arp, mac, err := k.host.ParentARP(r.Spec.Parent)
	if err != nil {
		return "", false
	}
	defer arp.Close()
	if arp.Probe(addr) != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, askedFor)
	defer cancel()
	var conflict *dhcpclient.ConflictError
	if errors.As(dhcpclient.WatchConflict(ctx, arp, mac, addr), &conflict) {
		return conflict.By.String(), true
	}
	return "", false
}

// holder is another lease that uses the address on the same parent.
func (k *Keeper) holder(e *entry, parent string, addr netip.Addr) (by string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	for _, o := range k.leases {
		r := &o.rec
		if o == e || r.Spec.Parent != parent || r.Binding == nil || r.Binding.Address.Addr() != addr || now >= o.expiry() {
			continue
		}
		if r.State.HasAddress() || r.State == Kept && r.Pool != nil && !r.Pool.Held() {
			return r.Spec.Identity, true
		}
	}
	return "", false
}

// DropParent removes a parent that this program made, unless somebody uses it:
// a lease on it takes it away when it ends as the last one.
func (k *Keeper) DropParent(parent string) {
	k.dropParent(Record{Spec: Spec{Parent: parent}})
}
