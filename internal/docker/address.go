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
	"strings"

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
			return nil, fmt.Errorf("address %q is not in the network's subnet %v", req.Address, pl.Subnet)
		}
	}
	if req.Options[optType] == typeGateway {
		return p.gateway(ctx, pl, want)
	}
	if req.Options[optMAC] == "" {
		return p.recorded(req.PoolID, pl, want)
	}
	mac, err := net.ParseMAC(req.Options[optMAC])
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("MAC %q: not an Ethernet address", req.Options[optMAC])
	}
	defer p.macs.lock(mac.String())()
	e := endpoint{pool: pl, id: req.PoolID, mac: mac, name: req.Options[optName], want: want}
	r, err := p.reserve(ctx, e)
	if err != nil {
		return nil, err
	}
	p.mover.await(r.ID, mac)
	return answer(pl, r.Pool.Answered), nil
}

func answer(pl Pool, addr netip.Addr) map[string]any {
	return map[string]any{"Address": netip.PrefixFrom(addr, pl.Subnet.Bits()).String(), "Data": map[string]string{}}
}

// gateway answers with the address that was typed, else the LAN's router.
func (p *Plugin) gateway(ctx context.Context, pl Pool, want netip.Addr) (any, error) {
	if want.IsValid() {
		return answer(pl, want), nil
	}
	subnet, router, err := p.Discover(ctx, pl)
	if err != nil {
		return nil, err
	}
	if !pl.Subnet.Overlaps(subnet) {
		return nil, fmt.Errorf("the DHCP server on %s serves %v, which is not --subnet %v: create the network with the subnet of that VLAN", pl.Parent, subnet, pl.Subnet)
	}
	if !router.IsValid() || !pl.Subnet.Contains(router) {
		return nil, fmt.Errorf("the DHCP server on %s names no router in %v: give --gateway", pl.Parent, pl.Subnet)
	}
	return answer(pl, router), nil
}

// recorded answers a call without a MAC, which is a replay, from the records.
func (p *Plugin) recorded(id string, pl Pool, want netip.Addr) (any, error) {
	for _, v := range p.Keeper.PoolLeases(id) {
		if want.IsValid() && v.Pool.Answered == want && !v.Pool.Held() {
			return answer(pl, want), nil
		}
	}
	return nil, errors.New("no lease is on record for that address, and without a MAC none can be asked for; --aux-address has no meaning here: exclude addresses at the DHCP server")
}

// endpoint is what asks for an address.
type endpoint struct {
	pool Pool
	id   string // the pool's
	mac  net.HardwareAddr
	name string // the container's, where the engine tells it
	want netip.Addr
}

// reserve gets the lease: the one a repeated call already got, the one a
// restart finds again, or a new one.
func (p *Plugin) reserve(ctx context.Context, e endpoint) (lease.Record, error) {
	identity := e.identity(p.MachineID)
	if r, ok, err := p.repeated(ctx, e, identity); ok || err != nil {
		return r, err
	}
	o, err := e.options(p.MachineID, identity)
	if err != nil {
		return lease.Record{}, err
	}
	held, err := p.held(ctx, e, identity)
	if err != nil {
		return lease.Record{}, err
	}
	defer p.unclaim(held)
	pool := lease.Pool{ID: e.id, Delay: e.pool.ReleaseDelay, Bits: e.pool.Subnet.Bits(), Named: e.name != ""}
	r, err := p.Keeper.Reserve(ctx, o, pool, held, func(string) {})
	if err != nil {
		return r, e.explain(err)
	}
	got := r.Binding.Address.Addr()
	switch {
	case e.want.IsValid() && got != e.want:
		err = fmt.Errorf("--ip %v: the DHCP server on %s gave %v instead: run with that one, or reserve %v for the container at the server", e.want, e.pool.Parent, got, e.want)
	case !e.pool.Subnet.Contains(got):
		err = fmt.Errorf("the DHCP server on %s gave %v, which is not in --subnet %v: it has been given back; create the network with the subnet of that VLAN", e.pool.Parent, got, e.pool.Subnet)
	default:
		return r, nil
	}
	if _, rerr := p.Keeper.Release(ctx, r.ID, "not the address that was asked for"); rerr != nil {
		p.Log.Warn("lease not given back", "lease", r.ID, "error", rerr)
	}
	return r, err
}

// repeated finds what an earlier call for the same endpoint got. A lease whose
// container is still there belongs to somebody else.
func (p *Plugin) repeated(ctx context.Context, e endpoint, identity string) (_ lease.Record, ok bool, err error) {
	for _, v := range p.Keeper.PoolLeases(e.id) {
		if v.Spec.MAC.String() != e.mac.String() || v.Pool.Held() {
			continue
		}
		switch {
		case v.State == lease.Kept && v.Spec.Identity == identity && (!e.want.IsValid() || e.want == v.Pool.Answered):
			return v.Record, true, nil
		case v.State == lease.Kept || v.NS.Path == "" || p.has(v.NS, v.Child):
			return v.Record, false, fmt.Errorf("MAC %v is in use by %s on this network: give the container another --mac-address", e.mac, v.Target.Name)
		case !v.Pool.Answered.IsValid(): // the keeper was killed before it could answer
			if _, err := p.Keeper.Release(ctx, v.ID, "its exchange was interrupted"); err != nil {
				return v.Record, false, err
			}
			continue
		}
		// The engine has forgotten to give it up.
		if err := p.Keeper.GiveUp(ctx, e.id, v.Pool.Answered); err != nil {
			return v.Record, false, err
		}
	}
	return lease.Record{}, false, nil
}

// held finds and claims the held lease that the endpoint goes on with: the one of
// its address, MAC or name, or the only one that can be its own.
func (p *Plugin) held(ctx context.Context, e endpoint, identity string) (id string, err error) {
	var same, others []lease.View
	for _, v := range p.Keeper.PoolLeases("") {
		switch {
		case !v.Pool.Held() || v.Spec.Parent != e.pool.Parent || v.Binding == nil:
		case v.Spec.MAC.String() == e.mac.String(), e.name != "" && v.Spec.Identity == identity, v.Pool.ID == e.id && e.want == v.Binding.Address.Addr():
			same = append(same, v)
		case v.Pool.ID == e.id && !v.Pool.Named && !v.Pool.FixedMAC && succeeds(v.Spec.MAC, e.mac):
			others = append(others, v)
		}
	}
	for _, v := range same {
		if !p.claim(v.ID) {
			continue
		}
		if id == "" && (!e.want.IsValid() || v.Binding.Address.Addr() == e.want) {
			id = v.ID
			continue
		}
		_, err := p.Keeper.Release(ctx, v.ID, "its container asks for another address")
		p.unclaim(v.ID)
		if err != nil {
			p.unclaim(id)
			return "", err
		}
	}
	if id != "" || e.want.IsValid() || e.name != "" {
		return id, nil
	}
	if len(others) == 1 && p.claim(others[0].ID) {
		return others[0].ID, nil
	}
	if len(others) > 1 {
		var held []string
		for _, v := range others {
			held = append(held, v.Binding.Address.Addr().String())
		}
		p.Log.Warn("a restarted container may get another address: several are held and the engine does not say whose this is; give the containers --mac-address", "mac", e.mac.String(), "parent", e.pool.Parent, "held", strings.Join(held, " "))
	}
	return "", nil
}

// succeeds reports whether an engine that made up one MAC for a container can
// have made up the other at its next start. Engine 20 makes up 02:42 and four
// bytes, engine 28 any unicast address that is locally administered (moby,
// GenerateRandomMAC in libnetwork's netutils).
func succeeds(old, mac net.HardwareAddr) bool {
	prefixed := func(m net.HardwareAddr) bool { return m[0] == 0x02 && m[1] == 0x42 }
	local := func(m net.HardwareAddr) bool { return len(m) == 6 && m[0]&3 == 2 }
	return local(old) && local(mac) && (!prefixed(old) || prefixed(mac))
}

// network is a short name for what the pool is on, on this host.
func (e *endpoint) network(machineID string) string {
	sum := sha256.Sum256([]byte(machineID + " " + e.pool.Parent + " " + e.pool.Subnet.String()))
	return hex.EncodeToString(sum[:4])
}

// identity names the lease: by the container's name where it is known, else by
// its MAC.
func (e *endpoint) identity(machineID string) string {
	who := e.mac.String()
	if e.name != "" {
		who = e.name
	}
	if e.pool.ClientID == clientIDCluster {
		return lease.ClusterPrefix + "docker:" + e.pool.Subnet.String() + "/" + replica(who)
	}
	return "docker:" + e.network(machineID) + "/" + who
}

// clientID is the endpoint's client identifier as lease.ParseClientID takes it.
func (e *endpoint) clientID(machineID string) (string, error) {
	const most = 128
	name := e.name
	if e.pool.ClientID == clientIDCluster {
		name = replica(name)
	}
	if len(name) > most {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	switch scheme := e.pool.ClientID; {
	case scheme == clientIDMAC, name == "" && (scheme == "" || scheme == clientIDAuto):
		return "", nil
	case scheme == clientIDDUID:
		return "duid", nil
	case name == "":
		return "", fmt.Errorf("--ipam-opt client-id=%s: this engine does not tell the container's name (Docker 29.0 does): create the network with client-id=mac, or use a newer engine", scheme)
	case scheme == clientIDCluster:
		return "mvdhcp " + e.pool.Subnet.String() + " " + name, nil
	}
	return "mvdhcp " + e.network(machineID) + " " + name, nil
}

// options is what the lease is asked for with.
func (e *endpoint) options(machineID, identity string) (o lease.AttachOptions, err error) {
	pl := e.pool
	o = lease.AttachOptions{
		Timeout: pl.Timeout,
		Spec: lease.Spec{
			Identity: identity, Parent: pl.Parent, Mode: provision.Bridge, MAC: e.mac, VendorClass: pl.VendorClass, UserClass: pl.UserClass,
			RequestIP: e.want, Routes: lease.RoutesDefault, Conflict: dhcpclient.ConflictFast,
		},
	}
	if o.ClientID, err = e.clientID(machineID); err != nil {
		return o, err
	}
	if pl.Mode != "" {
		o.Spec.Mode = provision.Mode(pl.Mode)
	}
	if pl.Conflict != "" {
		o.Spec.Conflict = dhcpclient.ConflictCheck(pl.Conflict)
	}
	if !pl.NoHostname {
		o.Spec.Hostname = hostname(e.name)
	}
	if o.Spec.Allow, err = dhcpclient.ParseServers(pl.Allow); err == nil {
		o.Spec.Deny, err = dhcpclient.ParseServers(pl.Deny)
	}
	return o, err
}

// explain says what to do about a lease that could not be had.
func (e *endpoint) explain(err error) error {
	var conflict *dhcpclient.ConflictError
	var refused *dhcpclient.RefusedIPError
	switch on := fmt.Sprintf("no lease for %v on %s", e.mac, e.pool.Parent); {
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %w: run with the --ip that it offers or without, or reserve the address at the server", on, err)
	case errors.As(err, &conflict):
		return fmt.Errorf("%s: %w: free that address or exclude it at the server", on, err)
	case errors.Is(err, dhcpclient.ErrNoAnswer):
		return fmt.Errorf("%s within %v: %w: check the VLAN and the server with `mvdhcp probe --parent %s`", on, e.pool.Timeout, err, e.pool.Parent)
	default:
		return fmt.Errorf("%s: %w", on, inEngineWords(err))
	}
}

// inEngineWords names the engine's options where an error names those of attach.
func inEngineWords(err error) error {
	if !errors.Is(err, lease.ErrAttached) {
		return err
	}
	return errors.New(attachOptions.Replace(err.Error()))
}

var attachOptions = strings.NewReplacer("give another --mac", "give the container another --mac-address", "give --identity another name", "give another --driver-opt identity=NAME")

// hostname is a container's name as a host name, as far as it can be one
// (RFC 1123, 2.1); empty when nothing is left of it.
func hostname(name string) string {
	label := func(s string) string {
		s = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, s)
		return strings.Trim(s[:min(len(s), 63)], "-")
	}
	labels := strings.Split(name, ".")
	for i := range labels {
		labels[i] = label(labels[i])
	}
	labels = slices.DeleteFunc(labels, func(s string) bool { return s == "" })
	s := strings.Join(labels, ".")
	return strings.Trim(s[:min(len(s), 255)], "-.")
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
