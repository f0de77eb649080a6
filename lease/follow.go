// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mvdhcp/provision"
)

// followed reports whether the lease is on a container that its engine can stop
// and start again: the lease outlives the container's process.
func (r *Record) followed() bool {
	return r.Target.Kind == TargetDocker && r.Target.ContainerID != "" && r.Pool == nil
}

// following reports whether the lease goes by what its container does now. One
// of a pool takes the container's name only: the pool's owner tells the rest.
func (r *Record) following() bool {
	if r.Pool != nil {
		return r.Target.Kind == TargetDocker && r.State != Releasing && !r.Pool.Held()
	}
	return r.followed() && (r.State != Kept || r.Waiting) && r.State != Releasing
}

// Followed returns the leases of a container of the engine at host, also those
// that wait for it to start; "" is every container.
func (k *Keeper) Followed(host, container string) (rs []Record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.leases {
		if t := &e.rec.Target; t.DockerHost == host && (container == "" || t.ContainerID == container) && e.rec.following() {
			rs = append(rs, e.rec)
		}
	}
	return rs
}

// FollowedHosts returns the engines that Followed has containers of.
func (k *Keeper) FollowedHosts() map[string]bool {
	hosts := map[string]bool{}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.leases {
		if e.rec.following() {
			hosts[e.rec.Target.DockerHost] = true
		}
	}
	return hosts
}

// FollowedChanged delivers after FollowedHosts may have changed. It has one
// reader.
func (k *Keeper) FollowedChanged() <-chan struct{} { return k.follow }

// ContainerStarted tells that the container of a lease runs in the namespace:
// its child is made there, unless it is there already, with the name, MAC,
// client identifier and options of the attach. It returns before the exchange,
// which is tried until it succeeds or the container ends.
func (k *Keeper) ContainerStarted(ctx context.Context, id string, t Target, ns provision.Namespace, resolv *provision.ResolvFile) error {
	moves := func(r *Record) bool {
		switch {
		case !r.followed() || r.Target.ContainerID != t.ContainerID || r.State == Releasing:
			return false
		case r.State == Kept:
			return r.Waiting
		}
		return r.NS != ns || r.Target.PIDStart != t.PIDStart
	}
	e, release, err := k.seizeIf(ctx, id, moves)
	if e == nil || err != nil {
		return err
	}
	defer release()
	if k.record(e).State != Kept {
		k.wait(e)
	}
	k.update(e, func(r *Record) {
		r.Target, r.NS, r.Waiting, r.LastError = t, ns, false, ""
		r.Child = provision.Child{Name: r.Spec.Ifname, MAC: r.Spec.MAC, NSID: -1}
		r.BootID, r.ParentIndex = k.clock.BootID(), 0
		if r.Spec.DNS && resolv != nil {
			r.Resolv = &SavedResolv{File: *resolv}
		}
		if r.State = InitReboot; r.Binding == nil || k.clock.Now() >= e.expiry() {
			r.State = Init
		}
		e.missing, e.until, e.due = true, never, k.clock.Now()
	})
	k.save(e)
	return nil
}

// ContainerStopped tells that the container of a lease has ended. Its namespace
// is looked at before anything is believed.
func (k *Keeper) ContainerStopped(id string) {
	k.suspects(func(r *Record) bool { return r.ID == id && r.followed() }, 0)
}

// ContainerRenamed gives the lease's target the container's new name. The
// identity stays.
func (k *Keeper) ContainerRenamed(ctx context.Context, id, container, name string) error {
	k.mu.Lock()
	e := k.leases[id]
	k.mu.Unlock()
	if e == nil {
		return nil
	}
	_, release, err := k.own(ctx, e, false)
	if err != nil {
		return err
	}
	defer release()
	if r := k.record(e); !r.following() || r.Target.ContainerID != container {
		return nil
	}
	k.update(e, func(r *Record) { r.Target.Name = "docker:" + name })
	k.save(e)
	return nil
}

// ContainerRemoved releases a lease whose container is no more. It fails while
// the container's process runs, whoever says that it was removed.
func (k *Keeper) ContainerRemoved(ctx context.Context, id, container string) error {
	e, release, err := k.seizeIf(ctx, id, func(r *Record) bool { return r.followed() && r.Target.ContainerID == container })
	if e == nil || err != nil {
		return err
	}
	defer release()
	if r := k.record(e); r.State != Kept && k.host.Alive(r.Target, r.NS) {
		return fmt.Errorf("%s was removed, and its process runs on", r.Target.Name)
	}
	k.teardown(e, "its container was removed", !k.elsewhere(ctx, e))
	return nil
}

// errEnded: the lease that was waited for is no more.
var errEnded = errors.New("has ended")

// seizeIf takes the entry of a lease that is as ok says, before what is under
// way for it is cancelled and after. The entry is nil when it is not.
func (k *Keeper) seizeIf(ctx context.Context, id string, ok func(*Record) bool) (*entry, func(), error) {
	k.mu.Lock()
	e := k.leases[id]
	yes := e != nil && ok(&e.rec)
	k.mu.Unlock()
	if !yes {
		return nil, nil, nil
	}
	_, release, err := k.own(ctx, e, true)
	if errors.Is(err, errEnded) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if r := k.record(e); !ok(&r) {
		release()
		return nil, nil, nil
	}
	return e, release, nil
}

// wait turns an owned entry whose container has ended into one that waits for
// it. The lease is held without a child; what else the container had is gone
// with its process.
func (k *Keeper) wait(e *entry) {
	k.endVerify(e)
	r := k.record(e)
	r.Resolv, r.MadeParent = nil, false // the parent stays for its next start
	k.dismantle(r, false)
	r = k.update(e, func(r *Record) {
		r.State, r.Waiting, r.Resolv, r.Offered, r.LastError = Kept, true, nil, nil, ""
		r.NS, r.Child = provision.Namespace{}, provision.Child{Name: r.Spec.Ifname, MAC: r.Spec.MAC, NSID: -1}
		e.missing, e.suspect, e.tries = false, false, 0
	})
	e.due = k.expiry(e)
	k.save(e)
	k.event(EvKept, r, "%s has stopped: its lease is kept for its next start", r.Target.Name)
}

// outwait takes the end of a binding whose container has not started again: the
// entry goes on waiting, without a claim to the address.
func (k *Keeper) outwait(e *entry) {
	r := k.record(e)
	e.due = never
	if r.Binding == nil || r.LastError != "" {
		return
	}
	err := fmt.Errorf("lease of %v expired while its container was stopped", r.Binding.Address)
	r = k.update(e, func(r *Record) { r.LastError = oneLine(err) })
	k.save(e)
	k.event(EvExpired, r, "%v", err)
}

// unwait makes a waiting entry an ordinary kept one, for the next attach of its
// identity only.
func (k *Keeper) unwait(e *entry) Record {
	if k.lapsed(e) {
		return k.teardown(e, "detached without an address", true)
	}
	r := k.update(e, func(r *Record) { r.Waiting = false })
	e.due = k.expiry(e)
	k.save(e)
	k.event(EvKept, r, "lease kept without a child")
	return r
}

// lapsed reports whether an entry waits and has no valid address any more.
func (k *Keeper) lapsed(e *entry) bool {
	r := k.record(e)
	return r.Waiting && (r.Binding == nil || k.clock.Now() >= k.expiry(e))
}

// elsewhere reports whether an owned entry waits while its workload has gone on
// to another host with its identity, MAC and address: a release would end the
// lease there.
func (k *Keeper) elsewhere(ctx context.Context, e *entry) bool {
	r := k.record(e)
	if !r.Waiting || !strings.HasPrefix(r.Spec.Identity, ClusterPrefix) || k.lapsed(e) {
		return false
	}
	by, taken := k.takenOver(ctx, e)
	if taken {
		k.log.Info("lease left to the host that has its address now", "lease", r.ID, "identity", r.Spec.Identity, "mac", by)
	}
	return taken
}

// followSoon wakes who reads FollowedChanged.
func (k *Keeper) followSoon() {
	select {
	case k.follow <- struct{}{}:
	default:
	}
}
