// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// View is a lease as it is shown: its record, and its times by today's wall
// clock (zero where there is none).
type View struct {
	Record
	RenewAt, RebindAt, ExpiresAt time.Time
	// ParentDown says why the lease waits for its parent, "" when it doesn't;
	// ParentGone is set when there is none.
	ParentDown string
	ParentGone bool
}

// Leases returns the leases that match the query, oldest first, with the ended
// ones of the last day when ended is set. A query is a lease id, an identity, a
// target, an interface's address or MAC; "" matches all.
func (k *Keeper) Leases(query string, ended bool) []View {
	k.mu.Lock()
	defer k.mu.Unlock()
	var vs []View
	now, wall := k.clock.Now(), k.clock.Wall()
	if ended {
		for _, r := range k.ended {
			if wall.Sub(r.EndedAt) < endedFor && matches(&r, query) {
				vs = append(vs, View{Record: r})
			}
		}
	}
	for _, e := range k.leases {
		if !matches(&e.rec, query) || e.rec.State == Ended && !ended { // its end is being stored
			continue
		}
		vs = append(vs, k.view(e, now, wall))
	}
	slices.SortFunc(vs, func(a, b View) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return vs
}

// Lease is the lease with an id, unless it has ended.
func (k *Keeper) Lease(id string) (v View, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.leases[id]
	if e == nil || e.rec.State == Ended {
		return View{}, false
	}
	return k.view(e, k.clock.Now(), k.clock.Wall()), true
}

// view shows an entry at a time on both clocks. The lock is held.
func (k *Keeper) view(e *entry, now time.Duration, wall time.Time) View {
	v := View{Record: e.rec}
	if st := k.parents[e.rec.Spec.Parent]; st != nil {
		v.ParentDown, v.ParentGone = st.down, st.gone
	}
	if b := e.rec.Binding; b != nil && e.rec.State != Releasing && e.rec.State != Ended {
		at := func(d time.Duration) time.Time { return wall.Add(e.bound + d - now).UTC() }
		v.RenewAt, v.RebindAt, v.ExpiresAt = at(b.T1), at(b.T2), at(b.Lease)
	}
	return v
}

// StoreInfo is where the leases are stored and how many bytes that takes.
func (k *Keeper) StoreInfo() (path string, size int64) { return k.store.Info() }

// Jobs returns how many exchanges are under way.
func (k *Keeper) Jobs() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, e := range k.leases {
		if e.op != nil {
			n++
		}
	}
	return n
}

func matches(r *Record, q string) bool {
	if q == "" || q == r.ID || q == r.Spec.Identity || q == r.Target.Name || strings.EqualFold(q, r.Spec.MAC.String()) {
		return true
	}
	if name, ok := strings.CutPrefix(r.Target.Name, "docker:"); ok && (q == name || len(q) >= 4 && strings.HasPrefix(r.Target.ContainerID, q)) {
		return true
	}
	if b := r.Binding; b != nil {
		return q == b.Address.String() || q == b.Address.Addr().String()
	}
	return false
}
