// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"runtime"
	"time"

	"mvdhcp/internal/api"
	"mvdhcp/lease"
)

// leaseOf is a lease as the API shows it.
func leaseOf(v lease.View) api.Lease {
	l := api.Lease{
		ID: v.ID, Identity: v.Spec.Identity, State: string(v.State), Target: v.Target.Name, NetNS: v.NS.Path,
		Ifname: v.Spec.Ifname, Parent: v.Spec.Parent, Mode: string(v.Spec.Mode), MAC: v.Spec.MAC.String(),
		ClientID: hex.EncodeToString(v.Spec.ClientID), Hostname: v.Spec.Hostname,
		Renewals: v.Renewals, LastError: v.LastError, EndedAt: v.EndedAt, EndReason: v.EndReason, ParentState: "up", Waiting: v.Waiting,
	}
	switch {
	case v.ParentGone:
		l.ParentState = "missing"
	case v.ParentDown != "":
		l.ParentState = "down"
	}
	if v.Pool != nil {
		l.Network = v.Pool.Network
	}
	if v.State != lease.Ended && v.State != lease.Releasing {
		l.EndReason = ""
	}
	b := v.Binding
	if b == nil {
		return l
	}
	l.Address, l.Server, l.MTU, l.Domain, l.Search = address(v.Record), text(b.Server), b.MTU, b.Domain, b.Search
	if v.Spec.MTU != 0 {
		l.MTU = v.Spec.MTU
	}
	onHost := v.Target.Kind == lease.TargetHost // has no routes but those to its peers
	if !onHost {
		l.Gateway = text(b.Router)
	}
	for _, r := range b.Routes {
		if onHost {
			break
		}
		via := ""
		if r.Via.IsValid() && !r.Via.IsUnspecified() {
			via = r.Via.String()
		}
		l.Routes = append(l.Routes, api.Route{Dst: r.Dst.String(), Via: via})
	}
	l.DNS, l.NTP = texts(b.DNS), texts(b.NTP)
	l.LeaseSeconds = int64(b.Lease / time.Second)
	l.BoundAt = api.Time{Time: v.BoundAt.Wall.UTC()}
	if l.LeaseSeconds != 0xffffffff {
		l.RenewAt, l.RebindAt, l.ExpiresAt = api.Time{Time: v.RenewAt}, api.Time{Time: v.RebindAt}, api.Time{Time: v.ExpiresAt}
	}
	return l
}

// address is that of a bound lease as it stands on the interface.
func address(r lease.Record) string {
	if r.Target.Kind == lease.TargetHost {
		return netip.PrefixFrom(r.Binding.Address.Addr(), 32).String()
	}
	return r.Binding.Address.String()
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func texts(as []netip.Addr) (ts []string) {
	for _, a := range as {
		ts = append(ts, a.String())
	}
	return ts
}

// Events streams the keeper's events.
func (s *service) Events(ctx context.Context, ready func() error, emit func(api.Event) error) error {
	c, stop := s.keeper.Subscribe()
	defer stop()
	if err := ready(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c:
			if err := emit(eventOf(e)); err != nil {
				return err
			}
		}
	}
}

func eventOf(e lease.Event) api.Event {
	v := api.Event{Time: e.Time.UTC(), Kind: string(e.Kind), Parent: e.Parent, Old: e.Old, New: e.New, Message: e.Message}
	if r := e.Record; r.ID != "" {
		v.Lease, v.Identity, v.Target, v.Ifname = r.ID, r.Spec.Identity, r.Target.Name, r.Spec.Ifname
		if b := r.Binding; b != nil {
			v.Address, v.Server = address(r), text(b.Server)
		}
	}
	return v
}

// Status is the keeper's own state.
func (s *service) Status(context.Context) (api.Status, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	st := api.Status{
		Version: s.options.Version, PID: os.Getpid(), StartedAt: s.started.UTC(), Uptime: time.Since(s.started).Seconds(),
		Leases: map[string]int{}, Socket: s.options.Socket, Goroutines: runtime.NumGoroutine(),
		Threads: entries("/proc/self/task"), Descriptors: entries("/proc/self/fd"),
		MemoryBytes: mem.HeapInuse, Jobs: s.keeper.Jobs(), Events: map[string]int64{},
	}
	st.StorePath, st.StoreBytes = s.keeper.StoreInfo()
	for kind, n := range s.keeper.EventCounts() {
		st.Events[string(kind)] = n
	}
	at := map[string]int{}
	for _, v := range s.keeper.Leases("", false) {
		st.Leases[string(v.State)]++
		i, ok := at[v.Spec.Parent]
		if !ok {
			i = len(st.Parents)
			at[v.Spec.Parent] = i
			p, err := s.kernel.Parent(cmp.Or(v.ParentLink, v.Spec.Parent))
			st.Parents = append(st.Parents, api.ParentStatus{Name: v.Spec.Parent, Up: p.Up, Carrier: p.Carrier, Missing: err != nil})
		}
		st.Parents[i].Leases++
	}
	return st, nil
}

// entries counts a directory's entries; 0 when it can't be read.
func entries(dir string) int {
	es, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	return len(es)
}
