// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/internal/probe"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Probe collects the offers of the servers on a parent's network. It takes no
// lease.
func (s *service) Probe(ctx context.Context, req api.ProbeRequest, progress func(string)) (res api.ProbeResult, err error) {
	if err := req.Validate(); err != nil {
		return res, err
	}
	mac := probe.RandomMAC()
	if req.MAC != "" {
		if mac, err = net.ParseMAC(req.MAC); err != nil {
			return res, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	id, err := lease.ParseClientID(req.ClientID, mac, "", "probe", "probe")
	if err != nil {
		return res, &api.Error{Code: api.CodeUsage, Message: err.Error()}
	}
	if err := s.keeper.CheckParent(req.Parent); err != nil {
		return res, err
	}
	window, patience := req.Window, time.Duration(0)
	if window <= 0 {
		window, patience = api.DefaultWindow, probe.Patience
	}
	offers, parent, err := probe.FromChild(ctx, probe.Question{
		Kernel: s.kernel, Log: s.options.Log, Parent: req.Parent, MAC: mac, ClientID: id, VendorClass: req.VendorClass,
		Window: window, Patience: patience, Progress: progress,
	})
	if err != nil {
		return res, err
	}
	if len(offers) == 0 {
		return res, s.nobodyAnswered(req.Parent, parent, window+patience)
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

// discover asks the LAN behind a pool's parent for its subnet and router; the
// first answer of a server that the pool allows counts.
func (s *service) discover(ctx context.Context, p docker.Pool) (subnet netip.Prefix, router netip.Addr, err error) {
	q := probe.Question{
		Kernel: s.kernel, Log: s.options.Log, Parent: p.Parent, Mode: provision.Mode(p.Mode), VendorClass: p.VendorClass, UserClass: p.UserClass,
		Window: p.Timeout, First: true,
	}
	if q.Allow, err = dhcpclient.ParseServers(p.Allow); err == nil {
		q.Deny, err = dhcpclient.ParseServers(p.Deny)
	}
	if err != nil {
		return subnet, router, err
	}
	offers, parent, err := probe.FromChild(ctx, q)
	switch {
	case err != nil:
		return subnet, router, fmt.Errorf("no answer of a DHCP server on %s: %w", p.Parent, err)
	case len(offers) == 0:
		return subnet, router, s.nobodyAnswered(p.Parent, parent, p.Timeout)
	}
	return offers[0].Address.Masked(), offers[0].Router, nil
}

// nobodyAnswered is the error of a question on the parent called name that got no
// offer within waited. The parent is as it was when the question was asked.
func (s *service) nobodyAnswered(name string, parent provision.Parent, waited time.Duration) error {
	if now, err := s.kernel.Parent(parent.Name); err == nil {
		parent = now
	}
	why := ""
	if !parent.Carrier {
		why = " (it has no carrier)"
	}
	return &api.Error{Code: api.CodeNoAnswer, Message: fmt.Sprintf("no DHCP server answered on %s within %v%s; check the VLAN and the server with `mvdhcp doctor --parent %s`", name, waited, why, name)}
}

// checkOptions holds options of the engine's networks to what attach takes.
func checkOptions(o docker.Options) error {
	req := api.AttachRequest{
		Target: "pid:1", Parent: o.Parent, Mode: o.Mode, Identity: o.Identity, ClientID: o.ClientID, Hostname: o.Hostname,
		RequestIP: o.RequestIP, VendorClass: o.VendorClass, UserClass: o.UserClass, Metric: o.Metric, Routes: o.Routes, MTU: o.MTU,
		AllowServers: o.AllowServers, DenyServers: o.DenyServers, ConflictCheck: o.ConflictCheck, Timeout: o.Timeout,
	}
	return req.Validate()
}
