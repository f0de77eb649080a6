// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// endpointRequest is CreateEndpoint, DeleteEndpoint, EndpointOperInfo and Join.
type endpointRequest struct {
	NetworkID, EndpointID string
	Interface             struct{ Address, AddressIPv6, MacAddress string }
	Options               map[string]any
	SandboxKey            string
}

func (r *endpointRequest) check() error {
	if r.NetworkID == "" || len(r.EndpointID) < linkDigits {
		return fmt.Errorf("endpoint %.12q of network %.12q: not ids of an engine", r.EndpointID, r.NetworkID)
	}
	return nil
}

// The name of an endpoint's link in the host's namespace, 15 bytes at most.
const (
	linkPrefix = "mv"
	linkDigits = 12
)

func linkOf(endpoint string) string { return linkPrefix + endpoint[:min(len(endpoint), linkDigits)] }

// ifname stands for an endpoint's interface in what is derived from it: its
// name in the container is the engine's to choose.
const ifname = "eth0"

// createEndpoint makes the endpoint's link. Where the IPAM plugin got the
// address, the link gets its MAC; else the link runs the exchange itself, and
// the answer is the address, and the MAC unless that was given.
func (d *driver) createEndpoint(ctx context.Context, req *endpointRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	defer d.endpoints.lock(req.EndpointID)()
	n, err := d.network(ctx, req.NetworkID)
	if err != nil {
		return nil, err
	}
	o, err := parseEndpoint(req.Options, d.Check)
	if err != nil {
		return nil, err
	}
	var mac net.HardwareAddr
	if s := req.Interface.MacAddress; s != "" {
		if mac, err = net.ParseMAC(s); err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("MAC %q: not an Ethernet address", s)
		}
	}
	if req.Interface.Address != "" {
		return struct{}{}, d.give(ctx, n, o, req, mac)
	}
	v, known := d.Keeper.Endpoint(req.EndpointID)
	if known && (v.Binding == nil || v.State != lease.Kept && !v.NS.Alive()) { // the keeper was killed in this call
		if err := d.Keeper.EndEndpoint(ctx, req.EndpointID, linkOf(req.EndpointID)); err != nil {
			return nil, err
		}
		known = false
	}
	r := v.Record
	if !known {
		if r, err = d.acquire(ctx, n, o, req, mac); err != nil {
			return nil, err
		}
	}
	is := map[string]string{"Address": r.Binding.Address.String()}
	if mac == nil {
		is["MacAddress"] = r.Spec.MAC.String()
	}
	return map[string]any{"Interface": is}, nil
}

// give makes the link for a lease that the IPAM plugin got.
func (d *driver) give(ctx context.Context, n Network, o endpointOptions, req *endpointRequest, mac net.HardwareAddr) error {
	if name := o.needsDHCP(); name != "" {
		return fmt.Errorf("--driver-opt %s has no effect with --ipam-driver mvdhcp, which got the address before: give it on a network with --ipam-driver null", name)
	}
	addr, err := netip.ParsePrefix(req.Interface.Address)
	if err != nil {
		return fmt.Errorf("address %q: not an address with its length", req.Interface.Address)
	}
	if _, known := d.Keeper.Endpoint(req.EndpointID); known {
		return nil
	}
	for _, v := range d.Keeper.PoolLeases("") {
		if v.State != lease.Kept || v.Pool.Held() || v.Pool.Endpoint != "" || v.Binding == nil || v.Binding.Address.Addr() != addr.Addr() || v.Spec.MAC.String() != mac.String() {
			continue
		}
		if v.Spec.Parent != n.Parent {
			return fmt.Errorf("address %v was leased on %s, and the network's links are on %s: create the network with the same IF in --ipam-opt parent=IF and -o parent=IF", addr.Addr(), v.Spec.Parent, n.Parent)
		}
		if _, err = d.Keeper.GiveChild(ctx, v.ID, req.EndpointID, linkOf(req.EndpointID), func(s *lease.Spec) {
			s.Mode = provision.Mode(cmp.Or(n.Mode, string(provision.Bridge)))
			n.configure(s, o)
		}); err == nil {
			d.mover.drop(v.ID)
			d.adopt(v.ID, req.EndpointID)
		}
		return err
	}
	return fmt.Errorf("address %v with MAC %v is not leased here: create the network with --ipam-driver mvdhcp --ipam-opt parent=%s, or with --ipam-driver null", addr.Addr(), mac, n.Parent)
}

// acquire gets a lease on a link of the endpoint's own.
func (d *driver) acquire(ctx context.Context, n Network, o endpointOptions, req *endpointRequest, mac net.HardwareAddr) (lease.Record, error) {
	who := d.identify(ctx, n, o, req.EndpointID, mac)
	defer d.unclaim(who.claimed)
	r, err := d.reserveChild(ctx, n, o, req.EndpointID, who)
	if errors.Is(err, lease.ErrAttached) && who.guessed {
		d.Log.Warn("container taken for one that runs already: its MAC is not stable", "endpoint", req.EndpointID, "taken_for", who.identity, "error", err)
		r, err = d.reserveChild(ctx, n, o, req.EndpointID, nobody(req.EndpointID, mac))
	}
	if err != nil {
		return r, explain(n, err)
	}
	d.adopt(r.ID, req.EndpointID)
	return r, nil
}

func (d *driver) reserveChild(ctx context.Context, n Network, o endpointOptions, endpoint string, who identity) (r lease.Record, err error) {
	if who.mac == nil {
		who.mac = d.Keeper.MAC(n.Parent, who.identity, ifname)
	}
	text := o.clientID
	switch {
	case text != "":
	case n.ClientID == "duid":
		text = "duid"
	case n.ClientID == "identity":
		text = who.identity
	}
	id, err := d.Keeper.ClientID(text, who.mac, who.identity, ifname)
	if err != nil {
		return r, err
	}
	a := lease.AttachOptions{
		ClientID: "hex:" + hex.EncodeToString(id), Timeout: n.Timeout,
		Target: lease.Target{Kind: lease.TargetDocker, Name: "docker:" + who.container.Name, ContainerID: who.container.ID},
		Spec: lease.Spec{
			Identity: who.identity, Parent: n.Parent, Ifname: linkOf(endpoint), MAC: who.mac,
			Mode:        provision.Mode(cmp.Or(n.Mode, string(provision.Bridge))),
			VendorClass: n.VendorClass, UserClass: n.UserClass, RequestIP: o.ip,
			Conflict: dhcpclient.ConflictCheck(cmp.Or(n.ConflictCheck, string(dhcpclient.ConflictFast))),
		},
	}
	if who.container.Name == "" {
		a.Target.Name = "docker:" + endpoint[:linkDigits]
	}
	if a.Spec.Hostname = o.hostname; o.hostname == "" && !n.NoHostname {
		a.Spec.Hostname = who.hostname
	}
	if a.Spec.Allow, err = dhcpclient.ParseServers(n.AllowServers); err == nil {
		a.Spec.Deny, err = dhcpclient.ParseServers(n.DenyServers)
	}
	if err != nil {
		return r, err
	}
	n.configure(&a.Spec, o)
	pool := lease.Pool{ID: poolOf(n.ID), Delay: n.ReleaseDelay, Endpoint: endpoint, Network: who.network}
	return d.Keeper.ReserveChild(ctx, a, pool, who.held, func(string) {})
}

// configure fills in what is put on the interface.
func (n *Network) configure(s *lease.Spec, o endpointOptions) {
	s.Metric, s.MTU, s.Routes = n.Metric, n.MTU, lease.RoutePolicy(cmp.Or(n.Routes, string(lease.RoutesAll)))
	if o.metric != 0 {
		s.Metric = o.metric
	}
	if o.mtu != 0 {
		s.MTU = o.mtu
	}
	if o.routes != "" {
		s.Routes = lease.RoutePolicy(o.routes)
	}
	if n.Internal {
		s.Routes = lease.RoutesNone
	}
}

// explain says what to do about a lease that could not be had.
func explain(n Network, err error) error {
	var conflict *dhcpclient.ConflictError
	switch {
	case errors.As(err, new(*dhcpclient.RefusedIPError)):
		return fmt.Errorf("no lease on %s: %w; give that one, or leave --driver-opt ip= out", n.Parent, err)
	case errors.As(err, &conflict):
		return fmt.Errorf("no lease on %s: %w; free that address or exclude it at the server", n.Parent, err)
	case errors.Is(err, dhcpclient.ErrNoAnswer):
		return fmt.Errorf("no lease on %s within %v: %w; check the VLAN and the server with `mvdhcp probe --parent %s`", n.Parent, n.Timeout, err, n.Parent)
	}
	return fmt.Errorf("no lease on %s: %w", n.Parent, inEngineWords(err))
}

// deleteEndpoint deletes the link and holds the lease back for its delay. An
// endpoint that is not known is no error: the call is repeated.
func (d *driver) deleteEndpoint(ctx context.Context, req *endpointRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	defer d.endpoints.lock(req.EndpointID)()
	return struct{}{}, d.Keeper.EndEndpoint(ctx, req.EndpointID, linkOf(req.EndpointID))
}

func (d *driver) operInfo(_ context.Context, req *endpointRequest) (any, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	value := map[string]any{}
	if v, ok := d.Keeper.Endpoint(req.EndpointID); ok && v.Binding != nil {
		value["lease"], value["server"] = v.ID, v.Binding.Server.String()
	}
	return map[string]any{"Value": value}, nil
}
