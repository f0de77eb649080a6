// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/dhcpclient/wire"
	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// probeWindow is how long offers are collected.
const probeWindow = 2 * time.Second

// Probe sends DISCOVER from a child of its own, in a namespace of its own, and
// collects the offers. It takes no lease.
func (s *service) Probe(ctx context.Context, req api.ProbeRequest, progress func(string)) (res api.ProbeResult, err error) {
	if err := req.Validate(); err != nil {
		return res, err
	}
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac)
	mac[0] = mac[0]&^0x01 | 0x02
	if req.MAC != "" {
		if mac, err = net.ParseMAC(req.MAC); err != nil {
			return res, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	id, err := lease.ParseClientID(req.ClientID, mac, "", "probe", "probe")
	if err != nil {
		return res, &api.Error{Code: api.CodeUsage, Message: err.Error()}
	}
	parent, made, err := s.kernel.EnsureParent(req.Parent)
	if err != nil {
		return res, err
	}
	if made {
		defer func() { err = errors.Join(err, s.kernel.RemoveParent(req.Parent)) }()
	}
	ns, err := provision.NewNamespace()
	if err != nil {
		return res, fmt.Errorf("failed to make a namespace for the probe: %w", err)
	}
	defer ns.Close()
	child, err := s.kernel.CreateChild(ctx, ns, provision.ChildSpec{Parent: parent, Name: "eth0", MAC: mac, Mode: provision.Bridge, Alias: "mvdhcp probe"})
	if err != nil {
		return res, fmt.Errorf("failed to make a child on %s for the probe: %w", req.Parent, err)
	}
	defer func() { err = errors.Join(err, s.kernel.DeleteChild(ns, child)) }()
	var conn dhcpclient.Conn
	if err := ns.Do(func() (err error) {
		conn, err = wire.ListenPacket(child.Index, wire.PacketOptions{MAC: mac})
		return err
	}); err != nil {
		return res, err
	}
	defer conn.Close()
	window := req.Window
	if window <= 0 {
		window = probeWindow
	}
	progress(fmt.Sprintf("DISCOVER sent on %s, collecting offers for %v", req.Parent, window))
	dctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	c := dhcpclient.Client{Params: dhcpclient.Params{MAC: mac, ClientID: id, VendorClass: req.VendorClass}, Conn: conn, Log: s.options.Log}
	offers, err := c.Discover(dctx)
	if err != nil && !errors.Is(err, dhcpclient.ErrNoAnswer) {
		return res, err
	}
	if len(offers) == 0 {
		why := ""
		if !parent.Carrier {
			why = " (it has no carrier)"
		}
		return res, &api.Error{Code: api.CodeNoAnswer, Message: fmt.Sprintf("no DHCP server answered on %s within %v%s; check the VLAN and the server", req.Parent, window, why)}
	}
	res.Parent = req.Parent
	for _, o := range offers {
		res.Offers = append(res.Offers, offerOf(o))
	}
	for i := range res.Offers[1:] {
		o := &res.Offers[i+1]
		o.Differs = differs(res.Offers[0], *o)
	}
	return res, nil
}

func offerOf(o dhcpclient.Offer) api.ProbeOffer {
	p := api.ProbeOffer{
		Server: o.Server.String(), ServerMAC: o.FromMAC.String(), Address: o.Address.Addr().String(),
		Subnet: o.Address.Masked().String(), LeaseSeconds: int64(o.Lease / time.Second), DNS: texts(o.DNS), Domain: o.Domain,
	}
	if o.Router.IsValid() {
		p.Router = o.Router.String()
	}
	return p
}

// differs names what an offer says otherwise than the first one.
func differs(a, b api.ProbeOffer) (fields []string) {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"subnet", a.Subnet == b.Subnet},
		{"router", a.Router == b.Router},
		{"lease_seconds", a.LeaseSeconds == b.LeaseSeconds},
		{"dns", fmt.Sprint(a.DNS) == fmt.Sprint(b.DNS)},
		{"domain", a.Domain == b.Domain},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// discover asks the LAN behind a parent for its subnet and router; the first
// answer counts.
func (s *service) discover(ctx context.Context, parent string) (subnet netip.Prefix, router netip.Addr, err error) {
	res, err := s.Probe(ctx, api.ProbeRequest{Parent: parent, Window: time.Second}, func(string) {})
	if err != nil {
		return subnet, router, err
	}
	if subnet, err = netip.ParsePrefix(res.Offers[0].Subnet); err != nil {
		return subnet, router, err
	}
	if res.Offers[0].Router != "" {
		router, err = netip.ParseAddr(res.Offers[0].Router)
	}
	return subnet, router, err
}

// checkPool holds a pool's options to what attach takes.
func checkPool(p docker.Pool) error {
	req := api.AttachRequest{
		Target: "pid:1", Parent: p.Parent, Mode: p.Mode, ClientID: p.ClientID, VendorClass: p.VendorClass, UserClass: p.UserClass,
		AllowServers: p.Allow, DenyServers: p.Deny, ConflictCheck: p.Conflict, Timeout: p.Timeout,
	}
	return req.Validate()
}
