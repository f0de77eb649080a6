// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var comparePrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func (r route) String() string {
	s := fmt.Sprintf("%s via %s src %s metric %d", r.dst, r.via, r.src, r.metric)
	if r.onlink {
		s += " onlink"
	}
	return s
}

func TestPlan(t *testing.T) {
	const index = 7
	def := func(index, metric int, proto uint8) route {
		return route{index: index, dst: prefix("0.0.0.0/0"), via: addr("10.9.0.1"), metric: metric, proto: proto, typ: 1}
	}
	base := Config{Address: prefix("10.9.0.5/24"), Router: addr("10.9.0.1")}
	shared := func(c *Config) { c.Shared = true }
	for _, tt := range []struct {
		name string
		cfg  func(*Config)
		have []route
		want []string
	}{
		{"no router", func(c *Config) { c.Router = netip.Addr{} }, nil, nil},
		{"first default route", nil, nil, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0"}},
		{"metric given", func(c *Config) { c.Metric = 50 }, []route{def(3, 0, 3)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 50"}},
		{"another default route", nil, []route{def(3, 0, 3)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 1007"}},
		{"another unreachable default route", nil, []route{{index: 1, dst: prefix("0.0.0.0/0"), typ: 7}}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0"}},
		{"ours was first", nil, []route{def(7, 0, 16), def(3, 1003, 16)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0"}},
		{"ours was second, alone now", nil, []route{def(7, 1007, 16)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 1007"}},
		{"ours had a metric asked for", nil, []route{def(7, 50, 16), def(3, 0, 3)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 1007"}},
		{"router outside", func(c *Config) { c.Address = prefix("10.9.0.5/32") }, nil, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0 onlink"}},
		{"shared: theirs through this child", shared, []route{def(7, 0, 3)}, nil},
		{"shared: theirs elsewhere", shared, []route{def(3, 0, 3)}, nil},
		{"shared: none yet", shared, nil, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 1007"}},
		{"shared: ours is there, theirs has come", shared, []route{def(7, 1007, 16), def(7, 0, 3)}, nil},
		{"shared: ours alone", shared, []route{def(7, 1007, 16)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 1007"}},
		{"shared: theirs by a former router", func(c *Config) { shared(c); c.Router = addr("10.9.0.2") }, []route{def(7, 0, 3)}, []string{"0.0.0.0/0 via 10.9.0.2 src 10.9.0.5 metric 1007"}},
		{"shared: metric asked for", func(c *Config) { shared(c); c.Metric = 50 }, []route{def(3, 0, 3)}, []string{"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 50"}},
		{"on the link comes first", func(c *Config) {
			c.Routes = []Route{{prefix("10.1.0.0/16"), addr("10.9.0.3")}, {prefix("10.2.0.0/16"), netip.Addr{}}, {prefix("10.3.0.0/16"), addr("0.0.0.0")}}
		}, nil, []string{
			"10.2.0.0/16 via invalid IP src 10.9.0.5 metric 0",
			"10.3.0.0/16 via invalid IP src 10.9.0.5 metric 0",
			"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0",
			"10.1.0.0/16 via 10.9.0.3 src 10.9.0.5 metric 0",
		}},
		{"doubles, host bits, the prefix itself, IPv6", func(c *Config) {
			c.Routes = []Route{
				{prefix("0.0.0.0/0"), addr("10.9.0.9")}, {prefix("10.1.2.3/16"), addr("10.9.0.3")},
				{prefix("10.1.0.0/16"), addr("10.9.0.4")}, {prefix("10.9.0.0/24"), netip.Addr{}},
				{prefix("fd00::/8"), addr("10.9.0.3")}, {prefix("10.5.0.0/16"), addr("fd00::1")}, {},
			}
		}, nil, []string{
			"0.0.0.0/0 via 10.9.0.1 src 10.9.0.5 metric 0",
			"10.1.0.0/16 via 10.9.0.3 src 10.9.0.5 metric 0",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := base
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			var got []string
			for _, r := range cfg.plan(index, tt.have) {
				if r.index != index || r.proto != 16 || r.typ != 1 {
					t.Errorf("route %+v", r)
				}
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBroadcastOf(t *testing.T) {
	for p, want := range map[string]string{
		"10.9.0.5/24": "10.9.0.255", "10.9.0.5/22": "10.9.3.255", "10.9.0.5/30": "10.9.0.7", "10.9.0.5/1": "127.255.255.255",
		"10.9.0.5/31": "invalid IP", "10.9.0.5/32": "invalid IP",
	} {
		if got := broadcastOf(prefix(p)).String(); got != want {
			t.Errorf("broadcast of %s: %s, want %s", p, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Hour: 1, 0: 1, 999 * time.Millisecond: 1, 2999 * time.Millisecond: 2, time.Hour: 3600,
		Forever - 1: infinite - 1, Forever: infinite, 1<<63 - 1: infinite,
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %d, want %d", d, got, want)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	ok := Config{Address: prefix("10.9.0.5/24")}
	if err := ok.check(); err != nil {
		t.Error(err)
	}
	for _, cfg := range []Config{
		{}, {Address: prefix("fd00::1/64")}, {Address: prefix("10.9.0.5/0")}, {Address: prefix("0.0.0.0/24")},
		{Address: prefix("127.0.0.1/8")}, {Address: prefix("224.0.0.5/24")}, {Address: prefix("255.255.255.255/24")},
		{Address: ok.Address, Router: addr("fd00::1")}, {Address: ok.Address, Metric: -1}, {Address: ok.Address, MTU: -1},
	} {
		if cfg.check() == nil {
			t.Errorf("%+v passes", cfg)
		}
	}
}
