// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"mvdhcp/dhcpclient"
)

// TestCrowding: a broadcast is copied for each child.
func TestCrowding(t *testing.T) {
	for _, c := range []struct {
		n, queue, backlog int
		want              Level
	}{
		{0, 1000, 1000, OK}, {499, 1000, 1000, OK}, {500, 1000, 1000, Warning}, {1000, 1000, 1000, Problem},
		{1000, 1000, 8000, Problem}, {1000, 8000, 8000, OK}, {4000, 8000, 8000, Warning}, {4001, 8000, 4000, Problem},
	} {
		f := crowding("eth0", c.n, c.queue, c.backlog)
		if f.Level != c.want || (f.Level != OK) != (f.Why != "" && f.Fix != "") {
			t.Errorf("%d children, queue %d, backlog %d: %+v, want %s", c.n, c.queue, c.backlog, f, c.want)
		}
	}
}

// TestPlural: one of a thing is no things.
func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 children", 1: "1 child", 2: "2 children"} {
		if f := crowding("eth0", n, 1000, 1000); !strings.HasPrefix(f.What, want+" on eth0,") {
			t.Errorf("%d: %s, want %s", n, f.What, want)
		}
	}
}

// TestOffers: one server, two that agree, two that don't, and a short lease.
func TestOffers(t *testing.T) {
	offer := func(server, address, router string, lease time.Duration) dhcpclient.Offer {
		return dhcpclient.Offer{Binding: dhcpclient.Binding{
			Server: netip.MustParseAddr(server), Address: netip.MustParsePrefix(address), Router: netip.MustParseAddr(router), Lease: lease,
		}}
	}
	one := offer("10.0.0.1", "10.0.0.57/24", "10.0.0.1", time.Hour)
	for name, c := range map[string]struct {
		offers []dhcpclient.Offer
		want   map[string]Level
	}{
		"one":          {[]dhcpclient.Offer{one}, map[string]Level{"dhcp": OK}},
		"agree":        {[]dhcpclient.Offer{one, offer("10.0.0.2", "10.0.0.99/24", "10.0.0.1", time.Hour)}, map[string]Level{"dhcp": Note}},
		"other subnet": {[]dhcpclient.Offer{one, offer("10.0.0.2", "10.0.1.99/24", "10.0.0.1", time.Hour)}, map[string]Level{"rogue-server": Warning}},
		"other router": {[]dhcpclient.Offer{one, offer("10.0.0.2", "10.0.0.99/24", "10.0.0.2", time.Hour)}, map[string]Level{"rogue-server": Warning}},
		"short":        {[]dhcpclient.Offer{offer("10.0.0.1", "10.0.0.57/24", "10.0.0.1", 30*time.Second)}, map[string]Level{"dhcp": OK, "lease-time": Note}},
	} {
		x := &examination{}
		x.offers(c.offers)
		if len(x.report.Findings) != len(c.want) {
			t.Errorf("%s: %+v, want %v", name, x.report.Findings, c.want)
		}
		for _, f := range x.report.Findings {
			if c.want[f.Check] != f.Level {
				t.Errorf("%s: %+v, want %v", name, f, c.want)
			}
		}
	}
}
