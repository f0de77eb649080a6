// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"net"

	"mvdhcp/lease"
)

// identity is whose lease an endpoint's is to be.
type identity struct {
	identity string
	mac      net.HardwareAddr // nil: derived from the identity
	held     string           // the held lease that it goes on from
	claimed  string           // the lease that is to be unclaimed
	// container is the one that starts, as far as it is known.
	container Container
	hostname  string
	network   string
	// guessed is set when the engine's answer, and not a person, said so.
	guessed bool
}

// nobody is an endpoint of which nothing is known.
func nobody(endpoint string, mac net.HardwareAddr) identity {
	return identity{identity: "docker:" + endpoint[:linkDigits], mac: mac}
}

// identify finds out whose the endpoint is: by --driver-opt identity=, by the
// container that the engine is just starting, or as the only endpoint of the
// network that was given up a moment ago. Else it is a new one. What it claims is
// the caller's to unclaim.
func (d *driver) identify(ctx context.Context, n Network, o endpointOptions, endpoint string, mac net.HardwareAddr) identity {
	who := identity{identity: o.identity, mac: mac}
	if o.identity == "" {
		c, network, err := d.asker.starting(ctx, n.ID)
		who.container, who.network = c, network
		if err == nil {
			who.identity, who.hostname, who.guessed = "docker:"+network+"/"+c.Name, hostname(c.Name), true
		} else {
			d.Log.Debug("engine does not tell which container starts", "network", n.ID, "error", err)
		}
	}
	d.bury(ctx, n)
	var held []lease.View
	for _, v := range d.Keeper.PoolLeases(poolOf(n.ID)) {
		if v.Pool.Held() && v.State == lease.Kept {
			held = append(held, v)
		}
	}
	for _, v := range held {
		own := who.identity != "" && v.Spec.Identity == who.identity || who.identity == "" && mac != nil && v.Spec.MAC.String() == mac.String()
		if own && d.claim(v.ID) {
			return d.goOn(ctx, n, o, who, v)
		}
	}
	switch {
	case who.identity != "":
		return who
	case mac != nil:
		who.identity = "docker:" + mac.String()
		return who
	case len(held) == 1 && d.claim(held[0].ID):
		d.Log.Info("container is not known: taken for the only one that was stopped a moment ago", "endpoint", endpoint, "identity", held[0].Spec.Identity)
		return d.goOn(ctx, n, o, who, held[0])
	}
	d.Log.Warn("container is not known: its MAC, and so its address, will be another at its next start; give it --driver-opt identity=NAME or --mac-address", "endpoint", endpoint, "network", n.ID, "held", len(held))
	return nobody(endpoint, mac)
}

// bury ends the network's endpoints whose namespace is gone. The engine does not
// tell the driver of those that it finds stale when it starts.
func (d *driver) bury(ctx context.Context, n Network) {
	for _, v := range d.Keeper.PoolLeases(poolOf(n.ID)) {
		if v.State == lease.Kept || v.State == lease.Releasing || v.NS.Alive() {
			continue
		}
		if err := d.Keeper.EndEndpoint(ctx, v.Pool.Endpoint, linkOf(v.Pool.Endpoint)); err != nil {
			d.Log.Debug("stale endpoint not ended", "endpoint", v.Pool.Endpoint, "error", err)
		}
	}
}

// goOn makes the endpoint go on from a claimed lease, unless that is for another
// MAC or address than was asked for: then the held one is released.
func (d *driver) goOn(ctx context.Context, n Network, o endpointOptions, who identity, v lease.View) identity {
	who.identity, who.claimed = v.Spec.Identity, v.ID
	otherMAC := who.mac != nil && v.Spec.MAC.String() != who.mac.String()
	otherIP := o.ip.IsValid() && (v.Binding == nil || v.Binding.Address.Addr() != o.ip)
	if !otherMAC && !otherIP && o.clientID == "" && v.Spec.Parent == n.Parent {
		who.mac, who.held = v.Spec.MAC, v.ID
		return who
	}
	if _, err := d.Keeper.Release(ctx, v.ID, "its container starts with another MAC, address or client identifier"); err != nil {
		d.Log.Debug("held lease not released", "lease", v.ID, "error", err)
	}
	return who
}
