// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"mvdhcp/lease"
)

// NetworkStore keeps the driver's networks: the engine tells of a network once,
// when it is created, and never again.
type NetworkStore interface {
	PutNetwork(id string, data []byte) error
	DeleteNetwork(id string) error
	Networks() (map[string][]byte, error)
}

// driver is the engine's network driver (docker network create -d mvdhcp). Its
// links are parked in the host's namespace between the engine's calls.
type driver struct {
	*Plugin
	ctx context.Context // that of Serve
	wg  sync.WaitGroup

	endpoints locks // of calls for one endpoint
	changes   locks // of what makes or ends one network

	mu       sync.Mutex
	networks map[string]Network
	restored map[string]bool          // networks that this keeper was not told of
	adopting map[string]chan struct{} // by endpoint
	joined   map[string]*joined       // by endpoint
	asker    asker
}

// newDriver reads the stored networks.
func newDriver(p *Plugin) *driver {
	d := &driver{Plugin: p, networks: map[string]Network{}, restored: map[string]bool{}, adopting: map[string]chan struct{}{}, joined: map[string]*joined{}}
	d.asker.wg, d.asker.names = &d.wg, map[string]string{}
	stored, err := p.Networks.Networks()
	if err != nil {
		p.Log.Error("stored networks can't be read: the engine is asked for each", "error", err)
	}
	for id, b := range stored {
		var n Network
		if err := json.Unmarshal(b, &n); err != nil || n.ID != id || n.Parent == "" {
			p.Log.Error("stored network can't be read: the engine is asked for it", "network", id, "error", err)
			continue
		}
		d.networks[id], d.restored[id] = n, true
	}
	return d
}

// start deletes links that nobody will take any more and looks for those that
// the engine has taken meanwhile. What is under way ends with ctx, after which
// wg can be waited for.
func (d *driver) start(ctx context.Context) {
	d.ctx, d.asker.life = ctx, ctx
	d.sweep()
	d.wg.Go(func() { d.forgetNetworks(ctx) })
	for _, v := range d.Keeper.PoolLeases("") {
		if v.State == lease.Kept && !v.Pool.Held() && v.Pool.Endpoint != "" {
			d.adopt(v.ID, v.Pool.Endpoint)
		}
	}
}

// register adds the driver's methods. What is not there is answered with 404,
// as the engine expects of a method that a driver does not have.
func (d *driver) register(mux *http.ServeMux) {
	const at = "/NetworkDriver."
	handle(mux, d.Plugin, at+"GetCapabilities", func(context.Context, *struct{}) (any, error) {
		return map[string]any{"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": true}, nil
	})
	handle(mux, d.Plugin, at+"GwAllocCheck", d.gwAllocCheck)
	handle(mux, d.Plugin, at+"CreateNetwork", d.createNetwork)
	handle(mux, d.Plugin, at+"DeleteNetwork", d.deleteNetwork)
	handle(mux, d.Plugin, at+"CreateEndpoint", d.createEndpoint)
	handle(mux, d.Plugin, at+"EndpointOperInfo", d.operInfo)
	handle(mux, d.Plugin, at+"DeleteEndpoint", d.deleteEndpoint)
	handle(mux, d.Plugin, at+"Join", d.join)
	for _, method := range []string{"Leave", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "DiscoverNew", "DiscoverDelete"} {
		handle(mux, d.Plugin, at+method, func(context.Context, *struct{}) (any, error) { return struct{}{}, nil })
	}
}

// networkRequest is CreateNetwork, DeleteNetwork and GwAllocCheck.
type networkRequest struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []struct{ AddressSpace, Pool, Gateway string }
}

// addressSpace is the IPAM plugin's.
const addressSpace = "mvdhcp"

// Names of the engine's own options (moby, libnetwork's netlabel).
const (
	optGeneric  = "com.docker.network.generic"
	optIPv6     = "com.docker.network.enable_ipv6"
	optInternal = "com.docker.network.internal"
)

// gwAllocCheck tells the engine to ask for no gateway address: the DHCP server
// names the router with each lease.
func (d *driver) gwAllocCheck(context.Context, *networkRequest) (any, error) {
	return map[string]bool{"SkipIPv4": true, "SkipIPv6": true}, nil
}

// createNetwork checks the options, makes a missing VLAN parent and stores the
// network.
func (d *driver) createNetwork(_ context.Context, req *networkRequest) (any, error) {
	if req.NetworkID == "" {
		return nil, errors.New("a network without an id")
	}
	n, err := req.network(d.Check)
	if err != nil {
		return nil, err
	}
	defer d.changes.lock(n.ID)()
	if err := d.Keeper.CheckParent(n.Parent); err != nil {
		return nil, err
	}
	_, made, err := d.Kernel.EnsureParent(n.Parent)
	if err == nil {
		if err = d.remember(n); err == nil {
			return struct{}{}, nil
		}
	}
	if made {
		d.Keeper.DropParent(n.Parent)
	}
	return nil, err
}

// network reads what the engine says of a network that is to be made.
func (req *networkRequest) network(judge func(Options) error) (n Network, err error) {
	if on, _ := req.Options[optIPv6].(bool); on || len(req.IPv6Data) > 0 {
		return n, errors.New("IPv6 is not served: create the network without --ipv6")
	}
	ownIPAM := false
	for _, d := range req.IPv4Data {
		switch {
		case d.AddressSpace == addressSpace:
			ownIPAM = true
		case d.Pool != "" && d.Pool != "0.0.0.0/0":
			return n, fmt.Errorf("the engine would give out addresses of %s that no DHCP server knows of: create the network with --ipam-driver null, or with --ipam-driver mvdhcp --ipam-opt parent=IF", d.Pool)
		}
	}
	opts := map[string]string{}
	generic, _ := req.Options[optGeneric].(map[string]any)
	for name, v := range generic {
		s, ok := v.(string)
		if !ok {
			return n, fmt.Errorf("-o %s: not a text", name)
		}
		opts[name] = s
	}
	n, err = parseNetwork(opts, ownIPAM, judge)
	n.ID = req.NetworkID
	n.Internal, _ = req.Options[optInternal].(bool)
	return n, err
}

func (d *driver) remember(n Network) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = d.Networks.PutNetwork(n.ID, b)
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.networks[n.ID] = n
	delete(d.restored, n.ID)
	return nil
}

func (d *driver) deleteNetwork(ctx context.Context, req *networkRequest) (any, error) {
	defer d.changes.lock(req.NetworkID)()
	return struct{}{}, d.endNetwork(ctx, req.NetworkID)
}

// endNetwork releases what the network still holds, and takes the parent away if
// it was made for a network and nobody else uses it. The network's lock is held.
func (d *driver) endNetwork(ctx context.Context, id string) error {
	for _, v := range d.Keeper.PoolLeases(poolOf(id)) {
		if _, err := d.Keeper.Release(ctx, v.ID, "its network was removed"); err != nil {
			d.Log.Warn("lease not released", "lease", v.ID, "error", err)
		}
	}
	if err := d.Networks.DeleteNetwork(id); err != nil {
		return err
	}
	d.mu.Lock()
	n, known := d.networks[id]
	delete(d.networks, id)
	delete(d.restored, id)
	d.mu.Unlock()
	d.asker.forget(id)
	if known {
		d.Keeper.DropParent(n.Parent)
	}
	return nil
}

// uses reports whether one of the driver's networks is on the parent.
func (d *driver) uses(parent string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		if n.Parent == parent {
			return true
		}
	}
	return false
}

// network returns a network by its id. One that is not known, as after the
// store was lost, is asked for at the engine.
func (d *driver) network(ctx context.Context, id string) (Network, error) {
	d.mu.Lock()
	n, ok := d.networks[id]
	d.mu.Unlock()
	if ok {
		return n, nil
	}
	req, err := d.asker.network(ctx, id)
	if err == nil {
		n, err = req.network(d.Check)
	}
	if err != nil {
		return n, fmt.Errorf("network %.12s is not known, and the engine can't be asked (%w): remove the network and create it again", id, err)
	}
	d.Log.Warn("network was not known: taken over as the engine has it", "network", id)
	return n, d.remember(n)
}

// poolOf is the pool that leases of a network belong to, where the driver got
// them itself.
func poolOf(network string) string { return "network:" + network }

// sweep deletes parked links that no lease waits in: the keeper was killed
// while it made them, or the engine while it moved them.
func (d *driver) sweep() {
	waiting := map[string]bool{}
	for _, v := range d.Keeper.PoolLeases("") {
		if v.State == lease.Kept && !v.Pool.Held() {
			waiting[v.ID] = true
		}
	}
	found, err := d.Kernel.Children(d.Kernel.Host(), lease.AliasPrefix)
	if err != nil {
		d.Log.Warn("links of the host can't be read", "error", err)
	}
	for _, c := range found {
		id, _, _ := strings.Cut(strings.TrimPrefix(c.Alias, lease.AliasPrefix), " ")
		if waiting[id] || !strings.HasPrefix(c.Name, linkPrefix) {
			continue
		}
		d.Log.Info("link left behind, deleted", "link", c.Name, "lease", id)
		if err := d.Kernel.DeleteParked(c.Name, lease.AliasPrefix); err != nil {
			d.Log.Error("link not deleted", "link", c.Name, "error", err)
		}
	}
}
