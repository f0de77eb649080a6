// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// A host link is a child in the host's own namespace (TargetHost). macvlan keeps
// parent and children apart (Documentation/networking: the parent's own frames
// never reach its children), so the host needs a child of its own to talk with
// the others. It has its address as a /32 and, instead of the lease's routes,
// one /32 route for each address leased on its parent, so that it never draws
// any other of the host's traffic.

// HostTarget is how the target of the parent's host link is called.
func HostTarget(parent string) string { return "host:" + parent }

// relinkWait is how long a host link waits after a change on its parent for more
// of them, before its routes follow.
const relinkWait = 50 * time.Millisecond

// relink makes the routes of the parent's host link follow before long.
func (k *Keeper) relink(parent string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.links {
		if e.rec.Spec.Parent != parent || !e.rec.Established {
			continue
		}
		e.lookBy(k.clock.Now() + relinkWait)
		e.reroute = true
		if e.op == nil {
			k.schedule(e)
			k.poke()
		}
	}
}

// reroute brings the routes of an owned host link up to date where that was asked
// for. It reports false when the child turned out to be gone.
func (k *Keeper) reroute(e *entry) bool {
	k.mu.Lock()
	asked := e.reroute && !e.missing && e.rec.State.HasAddress() && k.clock.Now() < e.expiry()
	e.reroute = false
	k.mu.Unlock()
	if !asked {
		return true
	}
	err := k.apply(e)
	if errors.Is(err, provision.ErrGone) {
		k.suspectNow(e)
		return false
	}
	if err != nil {
		k.note(e, err)
	}
	return true
}

// wanted is what is to stand on the child of a record with a binding, with that
// much time left.
func (k *Keeper) wanted(r *Record, left time.Duration) provision.Config {
	cfg := r.config(left)
	if r.Target.Kind == TargetHost {
		cfg.Router, cfg.Routes = netip.Addr{}, k.peers(r)
	}
	return cfg
}

// peers are the routes of a host link: the addresses leased on its parent.
func (k *Keeper) peers(link *Record) (routes []provision.Route) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	for _, e := range k.leases {
		r := &e.rec
		reserved := r.State == Kept && r.Pool != nil && !r.Pool.Held()
		if r.Spec.Parent == link.Spec.Parent && r.Target.Kind != TargetHost && r.Binding != nil && (r.State.HasAddress() || reserved) && now < e.expiry() {
			routes = append(routes, provision.Route{Dst: netip.PrefixFrom(r.Binding.Address.Addr(), 32)})
		}
	}
	slices.SortFunc(routes, func(a, b provision.Route) int { return a.Dst.Addr().Compare(b.Dst.Addr()) })
	return routes
}

// prefix is how the leased address stands on the child.
func (r *Record) prefix() netip.Prefix {
	if r.Target.Kind == TargetHost {
		return netip.PrefixFrom(r.Binding.Address.Addr(), 32)
	}
	if r.Pool != nil && r.Pool.Bits > 0 {
		return netip.PrefixFrom(r.Binding.Address.Addr(), r.Pool.Bits)
	}
	return r.Binding.Address
}

// fixed is the exchange of a child whose address was given: it looks whether
// anybody has the address, and makes a binding without a server or an end.
func (k *Keeper) fixed(ctx context.Context, e *entry, mode provision.Mode, progress func(string)) (b dhcpclient.Binding, at time.Duration, err error) {
	r := k.record(e)
	addr := r.Spec.Static
	if mode != r.Spec.Mode {
		if err := k.host.SetMode(r.NS, r.Child, r.Spec.Mode); err != nil {
			return b, 0, fmt.Errorf("%s: failed to set %s to mode %s: %w", r.Target.Name, r.Child.Name, r.Spec.Mode, err)
		}
	}
	b = dhcpclient.Binding{Address: netip.PrefixFrom(addr, 32), Lease: dhcpclient.Infinite}
	if err := k.held(e, b); err != nil {
		return b, 0, fmt.Errorf("address %v can't be given to %s: %w; give another --address", addr, r.Child.Name, err)
	}
	if r.Spec.Conflict != dhcpclient.ConflictOff {
		progress(fmt.Sprintf("looking whether %v is free", addr))
		arp, err := k.host.ARP(r.NS, r.Child)
		if err != nil {
			return b, 0, fmt.Errorf("%s: failed to open an ARP socket on %s: %w", r.Target.Name, r.Child.Name, err)
		}
		defer arp.Close()
		if err := quickCheck(ctx, arp, r, addr); err != nil {
			return b, 0, err
		}
	}
	return b, k.clock.Now(), nil
}

// Probing for a given address: the LAN answers in far less than a probe's wait.
const (
	quickProbes = 3
	quickWait   = 100 * time.Millisecond
)

// quickCheck probes for addr, with waits that are shorter than RFC 5227's (2.1.1)
// since the check goes on with those after the address is in use.
func quickCheck(ctx context.Context, arp dhcpclient.ARPConn, r Record, addr netip.Addr) error {
	for range quickProbes {
		if err := arp.Probe(addr); err != nil {
			return fmt.Errorf("ARP probe for %v: %w", addr, err)
		}
		wait, cancel := context.WithTimeout(ctx, quickWait)
		err := dhcpclient.WatchConflict(wait, arp, r.Spec.MAC, addr)
		cancel()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("looking whether %v is free: %w", addr, ctx.Err())
		}
	}
	return nil
}
