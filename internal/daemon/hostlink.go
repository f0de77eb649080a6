// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/api"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// HostLink makes the host's own child of the parent, or takes it away.
func (s *service) HostLink(ctx context.Context, req api.HostLinkRequest, progress func(string)) (api.Lease, error) {
	if err := req.Validate(); err != nil {
		return api.Lease{}, err
	}
	var there []lease.View
	for _, v := range s.keeper.Leases("", false) {
		if v.Target.Kind == lease.TargetHost && v.Spec.Parent == req.Parent && v.State != lease.Kept && v.State != lease.Releasing {
			there = append(there, v)
		}
	}
	if req.Remove {
		if len(there) == 0 {
			return api.Lease{}, fmt.Errorf("%s has no host link: `mvdhcp leases` shows what there is", req.Parent)
		}
		ls, err := s.each(there, func(id string) (lease.Record, error) { return s.keeper.Release(ctx, id, "host link removed") })
		if err != nil {
			return api.Lease{}, err
		}
		return ls[0], nil
	}
	o, err := hostLinkOptions(req)
	if err != nil {
		return api.Lease{}, err
	}
	if len(there) > 0 {
		return agree(there[0], o)
	}
	r, err := s.keeper.Attach(ctx, o, progress)
	if err != nil {
		return api.Lease{}, s.attachError(ctx, err, o)
	}
	vs := s.keeper.Leases(r.ID, false)
	if len(vs) != 1 {
		return api.Lease{}, fmt.Errorf("the host link on %s ended right after it was made", req.Parent)
	}
	return leaseOf(vs[0]), nil
}

// hostLinkOptions fills the defaults in. The request is valid.
func hostLinkOptions(req api.HostLinkRequest) (o lease.AttachOptions, err error) {
	name := lease.HostTarget(req.Parent)
	spec := lease.Spec{
		Identity: name, Parent: req.Parent, Ifname: cmp.Or(req.Ifname, hostLinkName(req.Parent)), Mode: provision.Bridge,
		Hostname: req.Hostname, Routes: lease.RoutesNone, Conflict: dhcpclient.ConflictCheck(cmp.Or(req.ConflictCheck, "fast")),
	}
	if req.MAC != "" {
		if spec.MAC, err = net.ParseMAC(req.MAC); err != nil {
			return o, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	if req.Address != "" {
		addr, _, _ := strings.Cut(req.Address, "/")
		if spec.Static, err = netip.ParseAddr(addr); err != nil {
			return o, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	ns, err := provision.Host()
	if err != nil {
		return o, err
	}
	o = lease.AttachOptions{
		Spec: spec, ClientID: req.ClientID, NS: ns, Timeout: req.Timeout,
		Target: lease.Target{Kind: lease.TargetHost, Name: name},
	}
	if o.Timeout <= 0 {
		o.Timeout = api.DefaultTimeout
	}
	return o, nil
}

// hostLinkName is mvh- and the parent's name or, where that is too long, what
// is derived from it.
func hostLinkName(parent string) string {
	if name := "mvh-" + parent; len(name) <= 15 {
		return name
	}
	sum := sha256.Sum256([]byte(parent))
	return "mvh-" + hex.EncodeToString(sum[:5])
}

// agree returns the host link that is there when it is as asked for.
func agree(v lease.View, o lease.AttachOptions) (api.Lease, error) {
	was, is := v.Spec, o.Spec
	if was.Static != is.Static || is.MAC != nil && is.MAC.String() != was.MAC.String() || is.Ifname != was.Ifname {
		return api.Lease{}, fmt.Errorf("%s has a host link already, %s with %s: take it away first with --remove", v.Spec.Parent, was.Ifname, addressOf(v))
	}
	return leaseOf(v), nil
}

func addressOf(v lease.View) string {
	if v.Binding == nil {
		return "no address yet"
	}
	return v.Binding.Address.Addr().String()
}
