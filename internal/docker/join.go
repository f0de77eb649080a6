// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// staticRoute is a route for the engine to put in (moby, libnetwork's
// drivers/remote/api).
type staticRoute struct {
	Destination string
	RouteType   int
	NextHop     string `json:",omitempty"`
}

// Route types.
const (
	routeNextHop   = 0
	routeConnected = 1
)

// joinAnswer is what the engine does with the link.
type joinAnswer struct {
	InterfaceName         struct{ SrcName, DstPrefix string }
	Gateway               string        `json:",omitempty"`
	StaticRoutes          []staticRoute `json:",omitempty"`
	DisableGatewayService bool          `json:",omitempty"`
}

// join tells the engine the link's name, the gateway and the routes, and has
// the keeper follow the link to where the engine moves it.
func (d *driver) join(ctx context.Context, req *endpointRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	defer d.endpoints.lock(req.EndpointID)()
	n, err := d.network(ctx, req.NetworkID)
	if err != nil {
		return nil, err
	}
	if v, known := d.Keeper.Endpoint(req.EndpointID); !known || v.Binding == nil {
		return nil, fmt.Errorf("endpoint %.12s has no lease any more: start the container again", req.EndpointID)
	}
	r, err := d.Keeper.Join(ctx, req.EndpointID, req.SandboxKey)
	if err != nil {
		return nil, err
	}
	a := answerJoin(n, r, d.beside(r))
	d.mu.Lock()
	d.joined[req.EndpointID] = &joined{routes: a.routes()}
	d.mu.Unlock()
	d.adopt(r.ID, req.EndpointID)
	return a, nil
}

// joined is what the engine was told of an endpoint.
type joined struct {
	routes []netip.Prefix
	seen   time.Time // its address, on the link
}

// routes are the destinations that the engine was told.
func (a *joinAnswer) routes() (dsts []netip.Prefix) {
	if a.Gateway != "" {
		dsts = append(dsts, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	for _, s := range a.StaticRoutes {
		dsts = append(dsts, netip.MustParsePrefix(s.Destination))
	}
	return dsts
}

// answerJoin tells the engine only what it can put in: routers on the link, and
// routes that no other interface of the container has. The rest, and what has a
// metric, the keeper puts in itself.
func answerJoin(n Network, r lease.Record, beside []netip.Prefix) (a joinAnswer) {
	a.InterfaceName.SrcName, a.InterfaceName.DstPrefix = linkOf(r.Pool.Endpoint), cmp.Or(n.Prefix, "eth")
	b := r.Binding
	told := r.Spec.Routes != lease.RoutesNone && r.Spec.Metric == 0
	if told && b.Router.IsValid() && b.Address.Contains(b.Router) {
		a.Gateway = b.Router.String()
	} else {
		a.DisableGatewayService = true
	}
	if !told || r.Spec.Routes != lease.RoutesAll {
		return a
	}
	for _, rt := range b.Routes {
		s := staticRoute{Destination: rt.Dst.Masked().String(), RouteType: routeConnected}
		switch {
		case rt.Dst.Bits() == 0 || rt.Dst.Masked() == b.Address.Masked() || slices.Contains(beside, rt.Dst.Masked()):
			continue
		case rt.Via.IsValid() && !b.Address.Contains(rt.Via):
			continue
		case rt.Via.IsValid():
			s.RouteType, s.NextHop = routeNextHop, rt.Via.String()
		}
		a.StaticRoutes = append(a.StaticRoutes, s)
	}
	return a
}

// beside lists the destinations that the container's other interfaces have.
func (d *driver) beside(r lease.Record) (dsts []netip.Prefix) {
	for _, v := range d.Keeper.PoolLeases("") {
		if v.ID == r.ID || v.Pool.Sandbox == "" || v.Pool.Sandbox != r.Pool.Sandbox || v.Pool.Held() || v.Binding == nil {
			continue
		}
		dsts = append(dsts, v.Binding.Address.Masked())
		for _, rt := range v.Binding.Routes {
			dsts = append(dsts, rt.Dst.Masked())
		}
	}
	return dsts
}

// Bounds of following a link.
const (
	adoptFirst = 10 * time.Millisecond
	adoptMost  = time.Second
	adoptFor   = 5 * time.Minute
	searchFrom = 2 * time.Second // the namespaces of the host are looked through
	settledFor = 5 * time.Second // from the address to the last route
)

// adopt follows an endpoint's link to the namespace that the engine moves it to.
// A link that is not taken in time is deleted and its lease given up: the engine
// has been killed meanwhile.
func (d *driver) adopt(id, endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if again := d.adopting[endpoint]; again != nil {
		select {
		case again <- struct{}{}:
		default:
		}
		return
	}
	again := make(chan struct{}, 1)
	d.adopting[endpoint] = again
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(d.ctx, adoptFor)
		defer cancel()
		d.await(ctx, id, endpoint, again)
		d.mu.Lock()
		delete(d.adopting, endpoint)
		delete(d.joined, endpoint)
		d.mu.Unlock()
		if ctx.Err() != nil && d.ctx.Err() == nil {
			d.giveUp(endpoint, id)
		}
	})
}

// await returns once the lease is in the container, or is not the endpoint's any
// more, or ctx ends. again makes it look at once.
func (d *driver) await(ctx context.Context, id, endpoint string, again <-chan struct{}) {
	start, wait := time.Now(), adoptFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			start, wait = time.Now(), adoptFirst
			continue
		case <-time.After(wait):
		}
		wait = min(wait*3/2, adoptMost)
		v, ok := d.Keeper.Endpoint(endpoint)
		switch {
		case !ok || v.ID != id:
			if err := d.Kernel.DeleteParked(linkOf(endpoint), lease.AliasPrefix); err != nil {
				d.Log.Error("link not deleted", "endpoint", endpoint, "error", err)
			}
			return
		case v.State != lease.Kept || d.follow(ctx, v, time.Since(start) > searchFrom):
			d.mover.arrived(id, v.Spec.MAC)
			return
		}
	}
}

// giveUp ends an endpoint whose link nobody has taken, unless it is followed
// again: a Join goes first.
func (d *driver) giveUp(endpoint, id string) {
	defer d.endpoints.lock(endpoint)()
	d.mu.Lock()
	_, again := d.adopting[endpoint]
	d.mu.Unlock()
	if again {
		return
	}
	if v, ok := d.Keeper.Endpoint(endpoint); ok && v.State != lease.Kept {
		return
	}
	d.Log.Warn("engine has not taken the link: deleted", "endpoint", endpoint, "lease", id)
	if err := d.Keeper.EndEndpoint(d.ctx, endpoint, linkOf(endpoint)); err != nil {
		d.Log.Error("endpoint not ended", "endpoint", endpoint, "error", err)
	}
}

// hostRoot is where a keeper with a root directory of its own, as a managed
// plugin has, finds the engine's files.
const hostRoot = "/proc/1/root"

// follow looks for the link in its sandbox, or everywhere.
func (d *driver) follow(ctx context.Context, v lease.View, search bool) bool {
	for _, root := range []string{"", hostRoot} {
		if v.Pool.Sandbox == "" {
			break
		}
		ns, err := provision.Open(root + v.Pool.Sandbox)
		if err != nil {
			continue
		}
		id := ns.ID()
		ns.Close()
		if d.into(ctx, v, id) {
			return true
		}
	}
	if !search {
		return false
	}
	all, err := provision.AllNamespaces()
	if err != nil {
		d.Log.Warn("namespaces can't be read", "error", err)
	}
	for _, ns := range all {
		if d.into(ctx, v, ns) {
			return true
		}
	}
	return false
}

// into takes the lease over to the link in the namespace, once that has it and
// the engine is through with it, or is not within settledFor.
func (d *driver) into(ctx context.Context, v lease.View, ns provision.Namespace) bool {
	if own := d.Kernel.Host().ID(); own.Dev == ns.Dev && own.Ino == ns.Ino || !d.settled(v, ns) {
		return false
	}
	err := d.Keeper.MoveIn(ctx, v.ID, ns, v.Target)
	if err != nil && !errors.Is(err, provision.ErrGone) {
		d.Log.Warn("lease not taken over", "lease", v.ID, "netns", ns.Path, "error", err)
	}
	return err == nil
}

// settled reports whether the engine has put on the link what join told it: what
// the keeper puts there first, the engine would fail at.
func (d *driver) settled(v lease.View, id provision.Namespace) bool {
	ns, err := id.Open()
	if err != nil {
		return false
	}
	defer ns.Close()
	child, err := d.Kernel.FindChild(ns, provision.Child{Name: v.Child.Name, MAC: v.Spec.MAC, NSID: -1})
	if err != nil {
		return false
	}
	ok, err := d.Kernel.HasAddress(ns, child, v.Binding.Address)
	if err != nil || !ok {
		return false
	}
	d.mu.Lock()
	j := d.joined[v.Pool.Endpoint]
	if j != nil && j.seen.IsZero() {
		j.seen = time.Now()
	}
	d.mu.Unlock()
	if j == nil { // before this keeper was started
		return true
	}
	ok, err = d.Kernel.Routed(ns, child, j.routes)
	return err == nil && ok || time.Since(j.seen) > settledFor
}
