// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"mvdhcp/provision"
)

// ReserveChild gets a lease for an engine's endpoint, pool.Endpoint: it runs the
// exchange on a child in a namespace of its own, and parks that child, down and
// under the name of o.Spec.Ifname, in the host's namespace, where the engine
// takes it from. The lease waits for MoveIn. held, when not empty, is the id of
// a held lease that this one goes on from; when this fails it is held as before.
func (k *Keeper) ReserveChild(ctx context.Context, o AttachOptions, pool Pool, held string, progress func(string)) (Record, error) {
	return k.lend(ctx, o, pool, held, func(ctx context.Context, e *entry, _ *Record) error {
		return k.parkChild(ctx, e, progress)
	})
}

// reuse gives a held lease the identity and name under which reserve finds it. A
// child of an endpoint that is still there, in a namespace to which no path
// leads any more, is deleted: its MAC is needed.
func (k *Keeper) reuse(ctx context.Context, held string, spec Spec) {
	e, release, err := k.seize(ctx, held)
	if err != nil {
		return // it has ended
	}
	defer release()
	if spec.MAC == nil {
		spec.MAC = DeriveMAC(k.machineID, spec.Parent, spec.Identity, spec.Ifname)
	}
	r := k.record(e)
	if r.State != Kept || !r.Pool.Held() {
		return
	}
	if r.Pool.Endpoint != "" {
		if err := k.host.DeleteChild(r.NS, r.Child); err != nil && !errors.Is(err, provision.ErrGone) {
			k.log.Warn("child of a held lease not deleted", "lease", r.ID, "error", err)
		}
	}
	k.update(e, func(r *Record) { r.Spec.Identity, r.Spec.Ifname = spec.Identity, spec.Ifname })
}

// parkChild takes an owned entry from its record to a bound lease with a parked
// child. What it did before an error is the caller's to undo.
func (k *Keeper) parkChild(ctx context.Context, e *entry, progress func(string)) error {
	b, at, err := k.acquire(ctx, e, progress)
	if err != nil {
		return err
	}
	k.bind(e, b, at)
	r := k.record(e)
	ns, child, err := k.host.Park(r.NS, r.Child, r.config(time.Minute).MTU)
	if err != nil {
		return err
	}
	k.update(e, func(r *Record) { r.NS, r.Child = ns, child })
	return nil
}

// GiveChild makes the parked child of a lease that Reserve got, under the name
// link, for an engine's endpoint. change has the last word on what is configured.
func (k *Keeper) GiveChild(ctx context.Context, id, endpoint, link string, change func(*Spec)) (Record, error) {
	e, release, err := k.seize(ctx, id)
	if err != nil {
		return Record{}, err
	}
	defer release()
	r := k.record(e)
	if r.State != Kept || r.Pool == nil || r.Pool.Held() || r.Pool.Endpoint != "" {
		return r, fmt.Errorf("lease %s is in use or has been given up", r.ID)
	}
	parent, made, err := k.host.EnsureParent(r.Spec.Parent)
	if err != nil {
		return r, err
	}
	pool := *r.Pool
	pool.Endpoint = endpoint
	r.Pool = &pool
	r.MadeParent = r.MadeParent || made
	change(&r.Spec)
	r.NS, r.Child, err = k.host.CreateParked(provision.ChildSpec{
		Parent: parent, Name: link, MAC: r.Spec.MAC, Mode: r.Spec.Mode, Alias: aliasOf(&r),
	}, r.config(time.Minute).MTU)
	if err != nil {
		return r, fmt.Errorf("failed to make %s on %s: %w", link, r.Spec.Parent, err)
	}
	k.update(e, func(rec *Record) { *rec = r })
	k.save(e)
	return r, nil
}

// Endpoint returns the lease that an engine's endpoint has, if it has one.
func (k *Keeper) Endpoint(endpoint string) (View, bool) {
	for _, v := range k.PoolLeases("") {
		if v.Pool.Endpoint == endpoint && !v.Pool.Held() && v.State != Releasing {
			return v, true
		}
	}
	return View{}, false
}

// Join notes the namespace that the engine moves the endpoint's child to.
func (k *Keeper) Join(ctx context.Context, endpoint, sandbox string) (Record, error) {
	v, ok := k.Endpoint(endpoint)
	if !ok {
		return Record{}, fmt.Errorf("endpoint %.12s has no lease", endpoint)
	}
	e, release, err := k.seize(ctx, v.ID)
	if err != nil {
		return Record{}, err
	}
	defer release()
	r := k.update(e, func(r *Record) {
		pool := *r.Pool
		pool.Sandbox, r.Pool = sandbox, &pool
	})
	k.save(e)
	return r, nil
}

// EndEndpoint deletes an endpoint's child, wherever it is, and holds its lease
// back for its delay, after which it is released. An endpoint that is not known
// is no error. link is the name its child has in the host's namespace.
func (k *Keeper) EndEndpoint(ctx context.Context, endpoint, link string) error {
	err := k.host.DeleteParked(link)
	for _, v := range k.PoolLeases("") {
		if v.Pool.Endpoint != endpoint {
			continue
		}
		e, release, serr := k.seize(ctx, v.ID)
		if serr != nil {
			if ctx.Err() != nil {
				err = errors.Join(err, serr)
			}
			continue // it has ended
		}
		r := k.record(e)
		if !r.Pool.Held() && r.State != Releasing {
			if derr := k.host.DeleteChild(r.NS, r.Child); derr != nil && !errors.Is(derr, provision.ErrGone) {
				err = errors.Join(err, derr)
			}
			k.update(e, func(r *Record) { r.NS, r.Child = provision.Namespace{}, provision.Child{MAC: r.Spec.MAC, NSID: -1} })
			k.hold(e)
		}
		release()
	}
	return err
}

// MAC returns the MAC that a child of this host derives, as DeriveMAC does.
func (k *Keeper) MAC(parent, identity, ifname string) net.HardwareAddr {
	return DeriveMAC(k.machineID, parent, identity, ifname)
}

// ClientID turns the value of --client-id into option 61, as ParseClientID does.
func (k *Keeper) ClientID(s string, mac net.HardwareAddr, identity, ifname string) ([]byte, error) {
	return ParseClientID(s, mac, k.machineID, identity, ifname)
}
