// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Options of a RequestAddress call.
const (
	optType     = "RequestAddressType"
	typeGateway = "com.docker.network.gateway"
	optMAC      = "com.docker.network.endpoint.macaddress"
	optName     = "com.docker.network.endpoint.name"
)

// requestAddress gets an endpoint its lease.
func (p *Plugin) requestAddress(ctx context.Context, req *addressRequest) (any, error) {
	pl, err := decodePool(req.PoolID)
	if err != nil {
		return nil, err
	}
	var want netip.Addr
	if req.Address != "" {
		if want, err = netip.ParseAddr(req.Address); err != nil || !pl.Subnet.Contains(want) {
			return nil, fmt.Errorf("address %s is not in the pool's subnet %v", req.Address, pl.Subnet)
		}
	}
	if req.Options[optType] == typeGateway {
		return p.gateway(ctx, pl, want)
	}
	if req.Options[optMAC] == "" {
		return p.recorded(req.PoolID, pl, want)
	}
	mac, err := net.ParseMAC(req.Options[optMAC])
	if err != nil {
		return nil, fmt.Errorf("MAC %q: not a MAC", req.Options[optMAC])
	}
	r, err := p.reserve(ctx, req.PoolID, pl, mac, req.Options[optName], want)
	if err != nil {
		return nil, err
	}
	p.moveIn(r.ID)
	return answer(pl, r.Binding.Address.Addr()), nil
}

func answer(pl Pool, addr netip.Addr) map[string]any {
	return map[string]any{"Address": netip.PrefixFrom(addr, pl.Subnet.Bits()).String(), "Data": map[string]string{}}
}

// gateway answers with the address that was typed, else the LAN's router.
func (p *Plugin) gateway(ctx context.Context, pl Pool, want netip.Addr) (any, error) {
	if want.IsValid() {
		return answer(pl, want), nil
	}
	_, router, err := p.Discover(ctx, pl.Parent)
	if err != nil {
		return nil, err
	}
	if !router.IsValid() || !pl.Subnet.Contains(router) {
		return nil, fmt.Errorf("the DHCP server on %s names no router in %v: give --gateway", pl.Parent, pl.Subnet)
	}
	return answer(pl, router), nil
}

// recorded answers a call without a MAC, which is a replay, from the records.
func (p *Plugin) recorded(id string, pl Pool, want netip.Addr) (any, error) {
	for _, v := range p.Keeper.PoolLeases(id) {
		if v.Binding != nil && want.IsValid() && v.Binding.Address.Addr() == want {
			return answer(pl, want), nil
		}
	}
	return nil, errors.New("no lease is on record for that address, and without a MAC none can be asked for; --aux-address has no meaning here: exclude addresses at the DHCP server")
}

// reserve gets the lease: the one a repeated call already got, the one a
// restart finds again, or a new one.
func (p *Plugin) reserve(ctx context.Context, id string, pl Pool, mac net.HardwareAddr, name string, want netip.Addr) (lease.Record, error) {
	for _, v := range p.Keeper.PoolLeases(id) {
		if v.Spec.MAC.String() == mac.String() && !v.Pool.Held() && v.Binding != nil && (!want.IsValid() || v.Binding.Address.Addr() == want) {
			return v.Record, nil
		}
	}
	sum := sha256.Sum256([]byte(pl.Parent + " " + pl.Subnet.String()))
	identity := "docker:" + hex.EncodeToString(sum[:4]) + "/" + mac.String()
	clientID := pl.ClientID
	if name != "" {
		identity = "docker:" + hex.EncodeToString(sum[:4]) + "/" + name
		if clientID == "" {
			clientID = "mvdhcp " + hex.EncodeToString(sum[:4]) + " " + name
		}
	}
	held := ""
	if !want.IsValid() {
		var err error
		if held, err = p.Keeper.HeldLease(id, mac, identity); err != nil {
			p.Log.Info("a restarted container may get another address", "reason", err)
		}
	}
	o := lease.AttachOptions{
		ClientID: clientID, Timeout: pl.Timeout,
		Spec: lease.Spec{
			Identity: identity, Parent: pl.Parent, Mode: provision.Bridge, MAC: mac, VendorClass: pl.VendorClass, UserClass: pl.UserClass,
			RequestIP: want, Routes: lease.RoutesDefault, Conflict: dhcpclient.ConflictFast,
		},
	}
	if pl.Mode != "" {
		o.Spec.Mode = provision.Mode(pl.Mode)
	}
	if pl.Conflict != "" {
		o.Spec.Conflict = dhcpclient.ConflictCheck(pl.Conflict)
	}
	if !pl.NoHostname {
		o.Spec.Hostname = name
	}
	for _, list := range []struct {
		from []string
		to   *[]netip.Addr
	}{{pl.Allow, &o.Spec.Allow}, {pl.Deny, &o.Spec.Deny}} {
		for _, s := range list.from {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return lease.Record{}, fmt.Errorf("server %q: not an address", s)
			}
			*list.to = append(*list.to, a)
		}
	}
	r, err := p.Keeper.Reserve(ctx, o, lease.Pool{ID: id, Delay: pl.ReleaseDelay}, held, func(string) {})
	if err != nil {
		return r, fmt.Errorf("no lease for %v on %s: %w", mac, pl.Parent, err)
	}
	if got := r.Binding.Address.Addr(); !pl.Subnet.Contains(got) {
		_, rerr := p.Keeper.Release(ctx, r.ID, "outside the pool's subnet")
		return r, errors.Join(fmt.Errorf("the DHCP server on %s gave %v, which is not in --subnet %v: it has been given back; create the network with the subnet of that VLAN", pl.Parent, got, pl.Subnet), rerr)
	}
	return r, nil
}

// Bounds of the search for the container a lease belongs to.
const (
	moveFirst = 50 * time.Millisecond
	moveMost  = 2 * time.Second
	moveFor   = 2 * time.Minute
	nameEvery = 500 * time.Millisecond
)

// moveIn looks for the interface that the engine makes with the lease's MAC and
// hands the lease over to it, beside the call that asked for the address.
func (p *Plugin) moveIn(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moving[id] {
		return
	}
	p.moving[id] = true
	p.wg.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.moving, id)
			p.mu.Unlock()
		}()
		ctx, cancel := context.WithTimeout(p.ctx, moveFor)
		defer cancel()
		wait := moveFirst
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = min(wait*3/2, moveMost)
			vs := p.Keeper.Leases(id, false)
			if len(vs) != 1 || vs[0].State != lease.Kept || vs[0].Pool.Held() {
				return
			}
			if p.tryMove(ctx, vs[0]) {
				p.name(ctx, id)
				return
			}
		}
	})
}

// tryMove looks through the host's namespaces once, newest processes first.
func (p *Plugin) tryMove(ctx context.Context, v lease.View) bool {
	all, err := provision.AllNamespaces()
	if err != nil {
		p.Log.Warn("namespaces can't be read", "error", err)
		return false
	}
	slices.Reverse(all)
	for _, ns := range all {
		if !p.has(ns, v.Child) {
			continue
		}
		t := lease.Target{Kind: lease.TargetDocker, Name: "docker:" + v.Spec.MAC.String()}
		err := p.Keeper.MoveIn(ctx, v.ID, ns, t)
		if err != nil && !errors.Is(err, provision.ErrGone) {
			p.Log.Warn("lease not taken over", "lease", v.ID, "netns", ns.Path, "error", err)
		}
		return err == nil
	}
	return false
}

// name finds out whose container it is. The engine lists its MAC only once the
// container has started.
func (p *Plugin) name(ctx context.Context, id string) {
	for {
		vs := p.Keeper.Leases(id, false)
		if len(vs) != 1 || !vs[0].State.HasAddress() {
			return
		}
		if t, network, ok := owner(ctx, vs[0].Target, vs[0].Spec.MAC); ok {
			if err := p.Keeper.Rename(ctx, id, t, network); err != nil {
				p.Log.Warn("lease not named after its container", "lease", id, "error", err)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(nameEvery):
		}
	}
}

func (p *Plugin) has(ns provision.Namespace, c provision.Child) bool {
	n, err := ns.Open()
	if err != nil {
		return false
	}
	defer n.Close()
	_, err = p.Kernel.FindChild(n, c)
	return err == nil
}
