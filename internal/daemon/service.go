// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/api"
	"mvdhcp/internal/doctor"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// service is the keeper as the API serves it.
type service struct {
	keeper  *lease.Keeper
	kernel  *provision.Kernel
	options Options
	started time.Time
}

var _ api.Service = (*service)(nil)

// Attach resolves the target and attaches it.
func (s *service) Attach(ctx context.Context, req api.AttachRequest, progress func(string)) (api.Lease, error) {
	if err := req.Validate(); err != nil {
		return api.Lease{}, err
	}
	t, err := resolve(ctx, req.Target, req.DockerHost)
	if err != nil {
		return api.Lease{}, err
	}
	o, err := attachOptions(req, t)
	if err != nil {
		return api.Lease{}, err
	}
	r, err := s.keeper.Attach(ctx, o, progress)
	if err != nil {
		return api.Lease{}, s.attachError(ctx, err, o)
	}
	vs := s.keeper.Leases(r.ID, false)
	if len(vs) != 1 {
		return api.Lease{}, fmt.Errorf("%s: its lease ended right after the attach", o.Target.Name)
	}
	return leaseOf(vs[0]), nil
}

// attachOptions fills the defaults in. The request is valid.
func attachOptions(req api.AttachRequest, t resolved) (o lease.AttachOptions, err error) {
	spec := lease.Spec{
		Identity: cmp.Or(req.Identity, t.identity), Parent: req.Parent, Ifname: req.Ifname, Mode: provision.Mode(cmp.Or(req.Mode, "bridge")),
		Hostname: cmp.Or(req.Hostname, t.hostname), VendorClass: req.VendorClass, UserClass: req.UserClass,
		Metric: req.Metric, Routes: lease.RoutePolicy(cmp.Or(req.Routes, "all")), DNS: req.DNS, MTU: req.MTU,
		Conflict: dhcpclient.ConflictCheck(cmp.Or(req.ConflictCheck, "fast")),
	}
	if req.NoHostname {
		spec.Hostname = ""
	}
	if req.MAC != "" {
		if spec.MAC, err = net.ParseMAC(req.MAC); err != nil {
			return o, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	if req.RequestIP != "" {
		if spec.RequestIP, err = netip.ParseAddr(req.RequestIP); err != nil {
			return o, &api.Error{Code: api.CodeUsage, Message: err.Error()}
		}
	}
	if spec.Allow, err = dhcpclient.ParseServers(req.AllowServers); err == nil {
		spec.Deny, err = dhcpclient.ParseServers(req.DenyServers)
	}
	if err != nil {
		return o, &api.Error{Code: api.CodeUsage, Message: err.Error()}
	}
	o = lease.AttachOptions{Spec: spec, ClientID: req.ClientID, Target: t.target, NS: t.ns, Timeout: req.Timeout}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if req.DNS {
		f, err := t.resolv()
		if err != nil {
			return o, err
		}
		o.Resolv = &f
	}
	return o, nil
}

// attachError gives an attach's error its code and its one line.
func (s *service) attachError(ctx context.Context, err error, o lease.AttachOptions) error {
	on := fmt.Sprintf("%s on %s", o.Target.Name, o.Spec.Parent)
	var conflict *dhcpclient.ConflictError
	switch {
	case ctx.Err() != nil:
		return err
	case errors.As(err, &conflict) && o.Spec.Static.IsValid():
		return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("%s: %v; give another --address", on, err)}
	case errors.As(err, &conflict):
		return &api.Error{Code: api.CodeConflict, Message: fmt.Sprintf("%s: %v; free that address or exclude it at the server", on, err)}
	case errors.Is(err, dhcpclient.ErrNoAnswer):
		hint := fmt.Sprintf("check the VLAN and the server with `mvdhcp doctor --parent %s`", o.Spec.Parent)
		if dhcpclient.Refused(err) {
			hint = fmt.Sprintf("`mvdhcp probe --parent %s` shows what each server offers", o.Spec.Parent)
		} else if cause := doctor.Likely(ctx, s.kernel, s.options.Log, o.Spec.Parent, o.Timeout); cause != "" {
			hint = cause
		}
		return &api.Error{Code: api.CodeNoAnswer, Message: fmt.Sprintf("%s: %v (gave up after %v); %s", on, err, o.Timeout, hint)}
	case errors.As(err, new(*dhcpclient.RefusedIPError)):
		return fmt.Errorf("%s: %w; ask for that one, or leave --request-ip out", on, err)
	}
	return err
}

// Detach ends the leases of a target.
func (s *service) Detach(ctx context.Context, req api.DetachRequest) ([]api.Lease, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	var vs []lease.View
	for _, q := range targetNames(req.Target) {
		for _, v := range s.keeper.Leases(q, false) {
			if v.Target.Name == q && (req.Ifname == "" || v.Spec.Ifname == req.Ifname) && attached(v) {
				vs = append(vs, v)
			}
		}
	}
	if len(vs) == 0 { // a container by its id
		for _, v := range s.keeper.Leases(strings.TrimPrefix(req.Target, "docker:"), false) {
			if v.Target.Kind == lease.TargetDocker && attached(v) && (req.Ifname == "" || v.Spec.Ifname == req.Ifname) {
				vs = append(vs, v)
			}
		}
	}
	if len(vs) == 0 {
		what := req.Target
		if req.Ifname != "" {
			what += ", interface " + req.Ifname
		}
		return nil, fmt.Errorf("%s is not attached: `mvdhcp leases` shows what is", what)
	}
	return s.each(vs, func(id string) (lease.Record, error) {
		if req.KeepLease {
			return s.keeper.Keep(ctx, id)
		}
		return s.keeper.Release(ctx, id, "detached")
	})
}

// attached reports whether a target has the lease, or will have it again when it
// starts.
func attached(v lease.View) bool { return v.State != lease.Kept || v.Waiting }

// targetNames are the names a target typed like this may be stored under.
func targetNames(text string) []string {
	t, err := api.ParseTarget(text)
	if err != nil {
		return nil
	}
	name := t.Name
	if t.Kind == api.TargetNetNS {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "/var"), netnsDir)
	}
	return []string{t.Kind + ":" + name}
}

// Leases lists leases.
func (s *service) Leases(_ context.Context, query string, all bool) ([]api.Lease, error) {
	vs := s.find(query, all)
	if len(vs) == 0 && query != "" {
		return nil, unknown(query)
	}
	ls := make([]api.Lease, 0, len(vs))
	for _, v := range vs {
		ls = append(ls, leaseOf(v))
	}
	return ls, nil
}

// Renew asks the server now.
func (s *service) Renew(ctx context.Context, query string) ([]api.Lease, error) {
	vs := s.find(query, false)
	if len(vs) == 0 {
		return nil, unknown(query)
	}
	return s.each(vs, func(id string) (lease.Record, error) { return s.keeper.Renew(ctx, id) })
}

// Release gives leases back.
func (s *service) Release(ctx context.Context, query string) ([]api.Lease, error) {
	vs := s.find(query, false)
	if len(vs) == 0 {
		return nil, unknown(query)
	}
	return s.each(vs, func(id string) (lease.Record, error) { return s.keeper.Release(ctx, id, "released by hand") })
}

// find takes what Leases takes, and a target as people type it.
func (s *service) find(query string, all bool) []lease.View {
	vs := s.keeper.Leases(query, all)
	if len(vs) > 0 || query == "" {
		return vs
	}
	for _, name := range targetNames(query) {
		vs = append(vs, s.keeper.Leases(name, all)...)
	}
	return vs
}

func unknown(query string) error {
	return fmt.Errorf("no lease, identity, target, address or MAC %q: `mvdhcp leases` shows what there is", query)
}

// each runs do for every lease and returns them as they are then, with the
// first error.
func (s *service) each(vs []lease.View, do func(id string) (lease.Record, error)) ([]api.Lease, error) {
	var ls []api.Lease
	var first error
	for _, v := range vs {
		r, err := do(v.ID)
		if err != nil && first == nil {
			first = err
			if errors.Is(err, dhcpclient.ErrNoAnswer) {
				first = &api.Error{Code: api.CodeNoAnswer, Message: fmt.Sprintf("%v; check the server with `mvdhcp probe --parent %s`", err, v.Spec.Parent)}
			}
		}
		if now := s.keeper.Leases(v.ID, false); len(now) == 1 {
			ls = append(ls, leaseOf(now[0]))
		} else if err == nil {
			ls = append(ls, leaseOf(lease.View{Record: r}))
		}
	}
	return ls, first
}
