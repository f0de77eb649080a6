// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

func TestRecordCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(r *Record)
		want   string // in the error; "": fine
	}{
		"as it is":                {func(*Record) {}, ""},
		"no id":                   {func(r *Record) { r.ID = "" }, "without an id"},
		"short MAC":               {func(r *Record) { r.Spec.MAC = r.Spec.MAC[:5] }, "MAC of 5"},
		"no parent":               {func(r *Record) { r.Spec.Parent = "" }, "parent"},
		"long parent":             {func(r *Record) { r.Spec.Parent = strings.Repeat("p", 16) }, "parent"},
		"no interface":            {func(r *Record) { r.Spec.Ifname = "" }, "interface"},
		"long interface":          {func(r *Record) { r.Spec.Ifname = strings.Repeat("e", 16) }, "interface"},
		"unknown state":           {func(r *Record) { r.State = "dreaming" }, "dreaming"},
		"bound without binding":   {func(r *Record) { r.Binding = nil }, "without a binding"},
		"kept without binding":    {func(r *Record) { r.State, r.Binding = Kept, nil }, "without a binding"},
		"init without binding":    {func(r *Record) { r.State, r.Binding = Init, nil }, ""},
		"no address":              {func(r *Record) { r.Binding.Address = netip.Prefix{} }, "binding"},
		"IPv6 address":            {func(r *Record) { r.Binding.Address = netip.MustParsePrefix("2001:db8::1/64") }, "binding"},
		"zero lease":              {func(r *Record) { r.Binding.Lease = 0 }, "binding"},
		"T1 after T2":             {func(r *Record) { r.Binding.T1 = r.Binding.T2 }, "T1"},
		"T2 at expiry":            {func(r *Record) { r.Binding.T2 = r.Binding.Lease }, "T1"},
		"for ever":                {func(r *Record) { r.Binding.Lease, r.Binding.T1, r.Binding.T2 = dhcpclient.Infinite, 0, 0 }, ""},
		"server not known":        {func(r *Record) { r.Binding.Server = netip.Addr{} }, ""},
		"offer without address":   {func(r *Record) { r.State, r.Offered = Requesting, &dhcpclient.Binding{Lease: time.Hour} }, "binding"},
		"releasing without lease": {func(r *Record) { r.State, r.Binding = Releasing, nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample(1)
			tc.change(&r)
			b, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeRecord(b)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(r, got, cmpAddrs); d != "" {
					t.Errorf("round trip (-want +got):\n%s", d)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// A record that decodes can be worked with: encoded again, and released.
func FuzzDecodeRecord(f *testing.F) {
	for _, change := range []func(*Record){
		func(*Record) {},
		func(r *Record) { r.State, r.Binding, r.Offered = Requesting, nil, r.Binding },
		func(r *Record) { r.State, r.Offered = Requesting, &dhcpclient.Binding{} },
		func(r *Record) { r.Binding.Server = netip.Addr{} },
		func(r *Record) { r.Spec.RequestIP = netip.IPv6LinkLocalAllNodes() },
		func(r *Record) { r.Binding.Lease = dhcpclient.Infinite },
	} {
		r := sample(1)
		change(&r)
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}"))
	f.Add([]byte(`{"version":1,"binding":{"address":"::/0"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("a record that was read can't be written: %v", err)
		}
		if _, err := DecodeRecord(again); err != nil {
			t.Fatalf("a record that was written can't be read: %v", err)
		}
		for _, b := range []*dhcpclient.Binding{r.Binding, r.Offered} {
			if b == nil {
				continue
			}
			r.Binding = b
			c := dhcpclient.Client{Params: r.request(), Conn: nowhere{}}
			_ = c.Release(*b)
			_, _ = c.Renew(t.Context(), *b)
			cfg := r.config(time.Hour)
			if cfg.Lifetime < time.Second || cfg.Address != b.Address {
				t.Fatalf("configuration %+v of %+v", cfg, b)
			}
		}
		_ = aliasOf(&r)
	})
}

// nowhere is a Conn that loses everything.
type nowhere struct{}

func (nowhere) Send(m *dhcpv4.DHCPv4, _ netip.Addr) error { m.ToBytes(); return nil }
func (nowhere) Receive(context.Context) (dhcpclient.Received, error) {
	return dhcpclient.Received{}, context.DeadlineExceeded
}
func (nowhere) Close() error { return nil }

func TestAliasRoundTrip(t *testing.T) {
	r := sample(7)
	got, ok := RecordOf(r.NS, r.Target, r.Child, r.Spec.Mode, aliasOf(&r), *r.Binding)
	if !ok {
		t.Fatal("not recognised")
	}
	if got.ID != r.ID || got.Spec.Identity != r.Spec.Identity || got.Spec.Parent != r.Spec.Parent || got.Spec.MAC.String() != r.Spec.MAC.String() || !got.Established {
		t.Errorf("from its child: %+v", got)
	}
	for _, alias := range []string{"", "somebody's", AliasPrefix, AliasPrefix + "a b", AliasPrefix + "  x", strings.Repeat("x", 300)} {
		if _, ok := RecordOf(r.NS, r.Target, r.Child, r.Spec.Mode, alias, *r.Binding); ok {
			t.Errorf("alias %q taken for a lease's", alias)
		}
	}
	r.Spec.Identity = strings.Repeat("i", 400)
	if n := len(aliasOf(&r)); n > 255 {
		t.Errorf("alias of %d bytes", n)
	}
}

func TestRecordConfig(t *testing.T) {
	r := sample(1)
	r.Binding.Routes = []dhcpclient.Route{{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.9")}}
	r.Binding.MTU = 1400
	full := provision.Config{
		Address: r.Binding.Address, Lifetime: time.Hour, Router: r.Binding.Router, MTU: 1400, Metric: 7,
		Routes: []provision.Route{{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.9")}},
	}
	r.Spec.Metric = 7
	with := func(f func(*provision.Config)) provision.Config { c := full; f(&c); return c }
	for name, tc := range map[string]struct {
		change func(*Record)
		left   time.Duration
		want   provision.Config
	}{
		"all":          {func(*Record) {}, time.Hour, full},
		"default only": {func(r *Record) { r.Spec.Routes = RoutesDefault }, time.Hour, with(func(c *provision.Config) { c.Routes = nil })},
		"no routes":    {func(r *Record) { r.Spec.Routes = RoutesNone }, time.Hour, with(func(c *provision.Config) { c.Routes, c.Router = nil, netip.Addr{} })},
		"own MTU":      {func(r *Record) { r.Spec.MTU = 9000 }, time.Hour, with(func(c *provision.Config) { c.MTU = 9000 })},
		"for ever":     {func(r *Record) { r.Binding.Lease = dhcpclient.Infinite }, time.Hour, with(func(c *provision.Config) { c.Lifetime = provision.Forever })},
		"nothing left": {func(*Record) {}, -time.Hour, with(func(c *provision.Config) { c.Lifetime = time.Second })},
	} {
		t.Run(name, func(t *testing.T) {
			r := r
			b := *r.Binding
			r.Binding = &b
			tc.change(&r)
			if d := cmp.Diff(tc.want, r.config(tc.left), cmpAddrs); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
