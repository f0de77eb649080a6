// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mvdhcp/lease"
)

// container is whose an interface is.
type container struct {
	id, name, network string
	// hostname is the one that was typed or, where the engine made it up, the
	// container's name.
	hostname string
	// fixedMAC is set when the MAC was typed, so that it stays.
	fixedMAC bool
}

// engine calls f with the keeper's own engine.
func engine(f func(*engineClient) error) error {
	e, err := newEngineClient("")
	if err != nil {
		return err
	}
	defer e.close()
	if err := f(e); err != nil {
		return fmt.Errorf("the Docker engine says: %w", err)
	}
	return nil
}

// owners finds the containers of those leases, as far as the engine lists them:
// by MAC, and by the address that an IPAM plugin answered with.
func owners(ctx context.Context, leases map[string]lease.View) (found map[string]container, err error) {
	found = map[string]container{}
	err = engine(func(e *engineClient) error {
		has := map[string]container{}
		err := each(ctx, e, "/containers/json", nil, func(c *listed) {
			for network, n := range c.NetworkSettings.Networks {
				for id, v := range leases {
					if n.MacAddress == v.Spec.MAC.String() && (!v.Pool.Answered.IsValid() || n.IPAddress == v.Pool.Answered.String()) && c.name() != "" {
						has[id] = container{id: c.ID, name: c.name(), network: network}
					}
				}
			}
		})
		if err != nil {
			return err
		}
		for id, o := range has {
			c, err := e.inspect(ctx, o.id)
			if errors.Is(err, errNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			if o.hostname = c.Hostname; o.hostname == "" || strings.HasPrefix(o.id, o.hostname) {
				o.hostname = hostname(o.name)
			}
			o.fixedMAC = strings.EqualFold(c.MAC, leases[id].Spec.MAC.String())
			found[id] = o
		}
		return nil
	})
	return found, err
}

// listedNetwork is a network as an engine tells of it.
type listedNetwork struct {
	ID         string `json:"Id"`
	Name       string
	Driver     string
	Options    map[string]string
	EnableIPv6 bool
	Internal   bool
	IPAM       struct {
		Driver  string
		Options map[string]string
		Config  []struct{ Subnet string }
	}
	// Containers is not in lists.
	Containers map[string]struct{ MacAddress string }
}

// endpoints are the MACs of all endpoints that the engine has on networks of a
// remote IPAM driver.
func endpoints(ctx context.Context) (macs map[string]bool, err error) {
	macs = map[string]bool{}
	err = engine(func(e *engineClient) error {
		var ids []string
		err := each(ctx, e, "/networks", nil, func(n *listedNetwork) {
			if n.IPAM.Driver != "default" && n.IPAM.Driver != "null" {
				ids = append(ids, n.ID)
			}
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			n, err := e.network(ctx, id)
			if errors.Is(err, errNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			for _, c := range n.Containers {
				macs[c.MacAddress] = true
			}
		}
		return nil
	})
	return macs, err
}

// networkPools counts the engine's networks by their pool's id. The parent of a
// pool that names none is that of its network, which must be the same.
func networkPools(ctx context.Context) (count map[string]int, err error) {
	count = map[string]int{}
	err = engine(func(e *engineClient) error {
		return each(ctx, e, "/networks", nil, func(n *listedNetwork) {
			for _, cfg := range n.IPAM.Config {
				pl, err := parsePool(cfg.Subnet, withParent(n.IPAM.Options, n.Options["parent"]))
				if err == nil && pl.Subnet.IsValid() {
					count[pl.id()]++
				}
			}
		})
	})
	return count, err
}
