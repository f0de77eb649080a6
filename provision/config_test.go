// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// has lists the IPv4 addresses and routes of a link as the kernel shows them to
// a library other than our own.
func has(t *testing.T, ns *NS, name string) (addrs, routes []string) {
	t.Helper()
	h := handle(t, ns)
	l := linkNamed(t, h, name)
	as, err := h.AddrList(l, netlink.FAMILY_V4)
	must(t, err)
	for _, a := range as {
		s := a.IPNet.String()
		if a.Broadcast != nil {
			s += " brd " + a.Broadcast.String()
		}
		addrs = append(addrs, s)
	}
	rs, err := h.RouteList(l, netlink.FAMILY_V4)
	must(t, err)
	for _, r := range rs {
		s := fmt.Sprintf("%s proto %d metric %d src %s", r.Dst, int(r.Protocol), r.Priority, r.Src)
		if r.Gw != nil {
			s += " via " + r.Gw.String()
		}
		if r.Flags&int(netlink.FLAG_ONLINK) != 0 {
			s += " onlink"
		}
		routes = append(routes, s)
	}
	slices.Sort(routes)
	return addrs, routes
}

func expect(t *testing.T, ns *NS, name string, wantAddrs, wantRoutes []string) {
	t.Helper()
	addrs, routes := has(t, ns, name)
	if diff := cmp.Diff(wantAddrs, addrs); diff != "" {
		t.Error("addresses:", diff)
	}
	slices.Sort(wantRoutes)
	if diff := cmp.Diff(wantRoutes, routes); diff != "" {
		t.Error("routes:", diff)
	}
}

func mustAddr(t testing.TB, s string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(s)
	must(t, err)
	return a
}

// setSecondaries sets promote_secondaries in the namespace.
func setSecondaries(t *testing.T, ns *NS, promote string) {
	t.Helper()
	for _, conf := range []string{"all", "default", "eth0"} {
		must(t, ns.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/"+conf+"/promote_secondaries", []byte(promote), 0)
		}))
	}
}

var lan = Config{
	Address: prefix("10.9.0.5/24"), Lifetime: time.Hour, Router: addr("10.9.0.1"),
	Routes: []Route{{prefix("10.1.0.0/16"), addr("10.9.0.3")}, {prefix("10.2.0.0/16"), netip.Addr{}}},
}

func TestApply(t *testing.T) {
	slash32 := Config{Address: prefix("10.9.0.5/32"), Lifetime: Forever, Router: addr("10.9.0.1")}
	metric := lan
	metric.Metric = 50
	for _, tt := range []struct {
		name          string
		cfg           Config
		addrs, routes []string
	}{
		{"lan", lan, []string{"10.9.0.5/24 brd 10.9.0.255"}, []string{
			"0.0.0.0/0 proto 16 metric 0 src 10.9.0.5 via 10.9.0.1",
			"10.1.0.0/16 proto 16 metric 0 src 10.9.0.5 via 10.9.0.3",
			"10.2.0.0/16 proto 16 metric 0 src 10.9.0.5",
			"10.9.0.0/24 proto 2 metric 0 src 10.9.0.5",
		}},
		{"metric", metric, []string{"10.9.0.5/24 brd 10.9.0.255"}, []string{
			"0.0.0.0/0 proto 16 metric 50 src 10.9.0.5 via 10.9.0.1",
			"10.1.0.0/16 proto 16 metric 50 src 10.9.0.5 via 10.9.0.3",
			"10.2.0.0/16 proto 16 metric 50 src 10.9.0.5",
			"10.9.0.0/24 proto 2 metric 50 src 10.9.0.5",
		}},
		{"/32", slash32, []string{"10.9.0.5/32"}, []string{"0.0.0.0/0 proto 16 metric 0 src 10.9.0.5 via 10.9.0.1 onlink"}},
		{"no router", Config{Address: prefix("10.9.0.6/31"), Lifetime: time.Minute}, []string{"10.9.0.6/31"}, []string{"10.9.0.6/31 proto 2 metric 0 src 10.9.0.6"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			ns, c := h.child(t, 1)
			for range 3 { // the second and third time change nothing
				must(t, h.Apply(ns, c, tt.cfg))
				expect(t, ns, "eth0", tt.addrs, tt.routes)
			}
			has, err := h.HasAddress(ns, c, tt.cfg.Address)
			if err != nil || !has {
				t.Error("HasAddress:", has, err)
			}
			must(t, h.Unconfigure(ns, c))
			expect(t, ns, "eth0", nil, nil)
			if has, err := h.HasAddress(ns, c, tt.cfg.Address); err != nil || has {
				t.Error("HasAddress:", has, err)
			}
			must(t, h.Unconfigure(ns, c))
		})
	}
}

func TestApplyLifetimes(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, ns)
	for _, d := range []time.Duration{time.Hour, 20 * time.Second, Forever, 90 * time.Second} {
		cfg := lan
		cfg.Lifetime = d
		must(t, h.Apply(ns, c, cfg))
		as, err := nh.AddrList(linkNamed(t, nh, "eth0"), netlink.FAMILY_V4)
		must(t, err)
		want := int(seconds(d))
		if got := as[0].ValidLft; len(as) != 1 || uint32(got) != uint32(want) && got != want-1 || as[0].PreferedLft != got {
			t.Errorf("%v: %d addresses, valid %d, preferred %d", d, len(as), as[0].ValidLft, as[0].PreferedLft)
		}
	}
	// The kernel takes the address and our routes off at the end.
	cfg := lan
	cfg.Lifetime = 0
	must(t, h.Apply(ns, c, cfg))
	eventually(t, "the address ends", func() bool { addrs, routes := has(t, ns, "eth0"); return addrs == nil && routes == nil })
	must(t, h.Apply(ns, c, lan))
	if addrs, routes := has(t, ns, "eth0"); len(addrs) != 1 || len(routes) != 4 {
		t.Error("after the end:", addrs, routes)
	}
}

// Whatever changes from one Config to the next, the second is what counts, with
// promote_secondaries on and off, and what others set stays.
func TestApplyChange(t *testing.T) {
	with := func(edit func(*Config)) Config { c := lan; edit(&c); return c }
	changes := map[string]Config{
		"same subnet":   with(func(c *Config) { c.Address = prefix("10.9.0.6/24") }),
		"longer prefix": with(func(c *Config) { c.Address = prefix("10.9.0.5/25") }),
		"other subnet": {Address: prefix("172.20.0.5/16"), Lifetime: time.Hour, Router: addr("172.20.0.1"),
			Routes: []Route{{prefix("10.1.0.0/16"), addr("172.20.0.3")}}},
		"other router": with(func(c *Config) { c.Router = addr("10.9.0.2") }),
		"no router":    with(func(c *Config) { c.Router = netip.Addr{} }),
		"no routes":    with(func(c *Config) { c.Routes = nil }),
		"metric":       with(func(c *Config) { c.Metric = 300 }),
		"to /32":       with(func(c *Config) { c.Address = prefix("10.9.0.5/32") }),
	}
	for name, changed := range changes {
		for _, promote := range []string{"0", "1"} {
			t.Run(name+" promote "+promote, func(t *testing.T) {
				h := newHost(t)
				fresh, fc := h.child(t, 1)
				must(t, h.Apply(fresh, fc, changed))
				wantAddrs, wantRoutes := has(t, fresh, "eth0")

				ns, c := h.child(t, 2)
				setSecondaries(t, ns, promote)
				must(t, h.Apply(ns, c, lan))
				nh := handle(t, ns)
				eth0 := linkNamed(t, nh, "eth0")
				// By hand: a secondary of ours, another subnet with an end, a route.
				must(t, nh.AddrAdd(eth0, mustAddr(t, "10.9.0.200/24")))
				ends := mustAddr(t, "192.168.77.1/24")
				ends.ValidLft, ends.PreferedLft = 1000, 1000
				must(t, nh.AddrAdd(eth0, ends))
				must(t, nh.RouteAdd(&netlink.Route{LinkIndex: c.Index, Dst: mustAddr(t, "192.168.78.0/24").IPNet, Gw: net.IPv4(192, 168, 77, 9), Protocol: unix.RTPROT_STATIC}))

				must(t, h.Apply(ns, c, changed))
				addrs, routes := has(t, ns, "eth0")
				byHand := []string{"10.9.0.200/24", "192.168.77.1/24", "192.168.78.0/24"}
				missing := slices.Clone(byHand)
				drop := func(list []string) (left []string) {
					for _, s := range list {
						dst, _, _ := strings.Cut(s, " ")
						missing = slices.DeleteFunc(missing, func(m string) bool { return m == dst })
						foreign := slices.Contains(byHand, dst) || strings.Contains(s, "src 10.9.0.200") || strings.HasPrefix(s, "192.168.77.")
						if !foreign {
							left = append(left, s)
						}
					}
					return left
				}
				addrs, routes = drop(addrs), drop(routes)
				if len(missing) > 0 {
					t.Error("set by hand and gone now:", missing)
				}
				if diff := cmp.Diff(wantAddrs, addrs); diff != "" {
					t.Error("addresses:", diff)
				}
				if name == "same subnet" { // whose prefix route it is depends on which address is primary
					isPrefix := func(s string) bool { return strings.HasPrefix(s, "10.9.0.0/24 proto 2") }
					routes, wantRoutes = slices.DeleteFunc(routes, isPrefix), slices.DeleteFunc(wantRoutes, isPrefix)
				}
				if diff := cmp.Diff(wantRoutes, routes); diff != "" {
					t.Error("routes:", diff)
				}
				must(t, h.Unconfigure(ns, c))
				missing = slices.Clone(byHand)
				addrs, routes = has(t, ns, "eth0")
				if a, r := drop(addrs), drop(routes); a != nil || r != nil && !strings.HasPrefix(r[0], "10.9.0.0/24 proto 2") || len(missing) > 0 {
					t.Error("Unconfigure left", a, r, "and took", missing)
				}
			})
		}
	}
}

// What was taken away by hand comes back with the next Apply.
func TestApplyRepairs(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	must(t, h.Apply(ns, c, lan))
	addrs, routes := has(t, ns, "eth0")
	nh := handle(t, ns)
	eth0 := linkNamed(t, nh, "eth0")
	for name, damage := range map[string]func() error{
		"route": func() error {
			return nh.RouteDel(&netlink.Route{Dst: mustAddr(t, "0.0.0.0/0").IPNet, LinkIndex: c.Index})
		},
		"address": func() error { return nh.AddrDel(eth0, mustAddr(t, "10.9.0.5/24")) },
		"down":    func() error { return nh.LinkSetDown(eth0) },
		"by hand": func() error { return nh.AddrReplace(eth0, mustAddr(t, "10.9.0.5/24")) },
	} {
		must(t, damage())
		must(t, h.Apply(ns, c, lan))
		t.Log(name)
		expect(t, ns, "eth0", addrs, routes)
	}
}

func TestApplySecondDefault(t *testing.T) {
	h := newHost(t)
	ns, a := h.child(t, 1)
	spec := h.spec(2)
	spec.Name = "eth1"
	b, err := h.CreateChild(t.Context(), ns, spec)
	must(t, err)
	other := Config{Address: prefix("10.8.0.5/24"), Lifetime: time.Hour, Router: addr("10.8.0.1")}
	for range 3 {
		must(t, h.Apply(ns, a, Config{Address: lan.Address, Lifetime: time.Hour, Router: lan.Router}))
		must(t, h.Apply(ns, b, other))
		expect(t, ns, "eth0", []string{"10.9.0.5/24 brd 10.9.0.255"}, []string{
			"0.0.0.0/0 proto 16 metric 0 src 10.9.0.5 via 10.9.0.1", "10.9.0.0/24 proto 2 metric 0 src 10.9.0.5"})
		expect(t, ns, "eth1", []string{"10.8.0.5/24 brd 10.8.0.255"}, []string{
			fmt.Sprintf("0.0.0.0/0 proto 16 metric %d src 10.8.0.5 via 10.8.0.1", 1000+b.Index), "10.8.0.0/24 proto 2 metric 0 src 10.8.0.5"})
	}
	must(t, h.Unconfigure(ns, b))
	if addrs, routes := has(t, ns, "eth0"); len(addrs) != 1 || len(routes) != 2 {
		t.Error("the other child has", addrs, routes)
	}
}

func TestApplyMTU(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	for _, tt := range []struct{ mtu, want int }{{1400, 1400}, {0, 1400}, {9000, 1500}, {1500, 1500}} {
		cfg := lan
		cfg.MTU = tt.mtu
		must(t, h.Apply(ns, c, cfg))
		if got := linkNamed(t, handle(t, ns), "eth0").Attrs().MTU; got != tt.want {
			t.Errorf("MTU %d: link has %d, want %d", tt.mtu, got, tt.want)
		}
	}
}

// One route that the kernel refuses keeps nothing else from being done.
func TestApplyRefusedRoute(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	cfg := lan
	cfg.Routes = []Route{{prefix("10.1.0.0/16"), addr("224.0.0.1")}, {prefix("10.2.0.0/16"), addr("10.9.0.3")}}
	err := h.Apply(ns, c, cfg)
	if !errors.Is(err, ErrRoute) || !strings.Contains(err.Error(), "10.1.0.0/16 via 224.0.0.1") {
		t.Error("Apply:", err)
	}
	if addrs, routes := has(t, ns, "eth0"); len(addrs) != 1 || len(routes) != 3 {
		t.Error("has", addrs, routes)
	}
}

func TestNeighbour(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	must(t, h.Apply(ns, c, lan))
	hop := mac(0xabcdef)
	nh := handle(t, ns)
	for ip, state := range map[string]int{"10.9.0.1": netlink.NUD_STALE, "10.9.0.9": netlink.NUD_FAILED} {
		must(t, nh.NeighSet(&netlink.Neigh{LinkIndex: c.Index, IP: net.ParseIP(ip), HardwareAddr: hop, State: state}))
	}
	for ip, want := range map[string]net.HardwareAddr{
		"10.9.0.1": hop, "192.0.2.1": hop, "10.9.0.9": nil, "10.9.0.10": nil, "10.9.0.5": nil,
	} {
		got, err := h.Neighbour(ns, c, addr(ip))
		must(t, err)
		if got.String() != want.String() {
			t.Errorf("toward %s: %s, want %s", ip, got, want)
		}
	}
	must(t, h.Unconfigure(ns, c))
	if got, err := h.Neighbour(ns, c, addr("192.0.2.1")); got != nil || err != nil {
		t.Error("without a route:", got, err)
	}
}
