// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/api"
	"mvdhcp/lease"
)

func TestAnswerJoin(t *testing.T) {
	const link = "mv0123456789ab"
	route := func(dst, via string) dhcpclient.Route {
		r := dhcpclient.Route{Dst: netip.MustParsePrefix(dst)}
		if via != "" {
			r.Via = netip.MustParseAddr(via)
		}
		return r
	}
	routes := []dhcpclient.Route{route("10.1.0.0/16", "10.9.0.3"), route("10.2.0.0/16", ""), route("10.3.0.0/16", "192.0.2.1"), route("10.9.0.0/24", "")}
	for _, tt := range []struct {
		name    string
		network Network
		spec    lease.Spec
		router  string
		beside  []string
		want    joinAnswer
	}{
		{"router and routes", Network{}, lease.Spec{Routes: lease.RoutesAll}, "10.9.0.1", nil, joinAnswer{
			Gateway: "10.9.0.1", StaticRoutes: []staticRoute{{"10.1.0.0/16", 0, "10.9.0.3"}, {"10.2.0.0/16", 1, ""}},
		}},
		{"the default route alone", Network{}, lease.Spec{Routes: lease.RoutesDefault}, "10.9.0.1", nil, joinAnswer{Gateway: "10.9.0.1"}},
		{"none", Network{}, lease.Spec{Routes: lease.RoutesNone}, "10.9.0.1", nil, joinAnswer{DisableGatewayService: true}},
		{"a metric", Network{}, lease.Spec{Routes: lease.RoutesAll, Metric: 5}, "10.9.0.1", nil, joinAnswer{DisableGatewayService: true}},
		{"a router that is not on the link", Network{}, lease.Spec{Routes: lease.RoutesDefault}, "192.0.2.1", nil, joinAnswer{DisableGatewayService: true}},
		{"no router", Network{}, lease.Spec{Routes: lease.RoutesDefault}, "", nil, joinAnswer{DisableGatewayService: true}},
		{"another interface has a route", Network{}, lease.Spec{Routes: lease.RoutesAll}, "10.9.0.1", []string{"10.1.0.0/16"}, joinAnswer{
			Gateway: "10.9.0.1", StaticRoutes: []staticRoute{{"10.2.0.0/16", 1, ""}},
		}},
		{"a name of one's own", Network{Prefix: "lan"}, lease.Spec{Routes: lease.RoutesDefault}, "10.9.0.1", nil, joinAnswer{Gateway: "10.9.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := dhcpclient.Binding{Address: netip.MustParsePrefix("10.9.0.5/24"), Routes: routes}
			if tt.router != "" {
				b.Router = netip.MustParseAddr(tt.router)
			}
			var beside []netip.Prefix
			for _, s := range tt.beside {
				beside = append(beside, netip.MustParsePrefix(s))
			}
			tt.want.InterfaceName.SrcName, tt.want.InterfaceName.DstPrefix = link, "eth"
			if tt.network.Prefix != "" {
				tt.want.InterfaceName.DstPrefix = tt.network.Prefix
			}
			got := answerJoin(tt.network, lease.Record{Spec: tt.spec, Binding: &b, Pool: &lease.Pool{Endpoint: "0123456789abcdef"}}, beside)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseNetwork(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts map[string]string
		ipam bool
		want Network
		err  string
	}{
		{name: "all", opts: map[string]string{
			"parent": "p0", "mode": "vepa", "client-id": "duid", "vendor-class": "v", "user-class": "u", "hostname": "off",
			"allow-server": "192.0.2.1,192.0.2.2", "deny-server": "192.0.2.3", "conflict-check": "async", "timeout": "3s",
			"release-delay": "never", "metric": "7", "routes": "default", "mtu": "1400", "ifname-prefix": "lan", "com.docker.network.other": "x",
		}, want: Network{
			Parent: "p0", Mode: "vepa", ClientID: "duid", VendorClass: "v", UserClass: "u", NoHostname: true,
			AllowServers: []string{"192.0.2.1", "192.0.2.2"}, DenyServers: []string{"192.0.2.3"}, ConflictCheck: "async", Timeout: 3 * time.Second,
			ReleaseDelay: -1, Metric: 7, Routes: "default", MTU: 1400, Prefix: "lan",
		}},
		{name: "the engine's own names", opts: map[string]string{"parent": "p0", "com.docker.network.driver.mtu": "1400", "com.docker.network.container_iface_prefix": "net"},
			want: Network{Parent: "p0", Timeout: defaultTimeout, ReleaseDelay: defaultReleaseDelay, MTU: 1400, Prefix: "net"}},
		{name: "with IPAM", ipam: true, opts: map[string]string{"parent": "p0", "mode": "private", "routes": "all"},
			want: Network{Parent: "p0", Timeout: defaultTimeout, ReleaseDelay: defaultReleaseDelay, Mode: "private", Routes: "all"}},
		{name: "no parent", err: "no parent: give -o parent=IF"},
		{name: "unknown", opts: map[string]string{"parent": "p0", "colour": "red"}, err: "-o colour is unknown: mvdhcp takes allow-server, "},
		{name: "IPAM's", ipam: true, opts: map[string]string{"parent": "p0", "timeout": "3s"}, err: "-o timeout has no effect with --ipam-driver mvdhcp, which gets the addresses: give --ipam-opt timeout=3s"},
		{name: "hostname", opts: map[string]string{"parent": "p0", "hostname": "web"}, err: "-o hostname=web: give on or off"},
		{name: "server", opts: map[string]string{"parent": "p0", "deny-server": "x"}, err: `-o deny-server "x": not an IPv4 address`},
		{name: "metric", opts: map[string]string{"parent": "p0", "metric": "-1"}, err: "-o metric -1: give a number"},
		{name: "prefix", opts: map[string]string{"parent": "p0", "ifname-prefix": "../x"}, err: "-o ifname-prefix=../x: give 1 to 11 letters"},
		{name: "delay", opts: map[string]string{"parent": "p0", "release-delay": "-1s"}, err: "give a duration such as 5s, 0s or never"},
		{name: "conflict check", opts: map[string]string{"parent": "p0", "conflict-check": "no"}, err: `-o conflict-check "no": give one of fast, wait, async, off`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseNetwork(tt.opts, tt.ipam, judge)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %q", err, tt.err)
			case tt.err == "":
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// judge is what the daemon judges options by.
func judge(o Options) error {
	return (&api.AttachRequest{
		Target: "pid:1", Parent: o.Parent, Mode: o.Mode, Metric: o.Metric, Routes: o.Routes, MTU: o.MTU,
		AllowServers: o.AllowServers, DenyServers: o.DenyServers, ConflictCheck: o.ConflictCheck, Timeout: o.Timeout,
	}).Validate()
}
