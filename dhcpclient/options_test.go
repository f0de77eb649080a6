// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// bind reads an ACK of addr with options put over the usual ones; nil takes one
// away.
func bind(addr string, options dhcpv4.Options) (Binding, error) {
	req := fullParams.discover(header{})
	m := ackOf(req, serverA, netip.MustParseAddr(addr))
	for code, v := range options {
		if v == nil {
			delete(m.Options, code)
		} else {
			m.Options[code] = v
		}
	}
	return newBinding(m)
}

func TestBindingAddress(t *testing.T) {
	mask := func(bits string) []byte {
		a := netip.MustParseAddr(bits).As4()
		return a[:]
	}
	tests := []struct {
		addr string
		mask []byte
		want string // "": refused
	}{
		{"10.0.0.57", mask("255.255.255.0"), "10.0.0.57/24"},
		{"10.0.0.57", mask("255.255.255.255"), "10.0.0.57/32"},
		{"10.0.0.57", mask("255.0.0.0"), "10.0.0.57/8"},
		{"10.0.0.56", mask("255.255.255.254"), "10.0.0.56/31"},
		{"10.0.0.57", mask("255.255.255.254"), "10.0.0.57/31"},
		{"10.0.0.0", mask("255.255.255.255"), "10.0.0.0/32"},
		{"10.0.1.0", mask("255.255.0.0"), "10.0.1.0/16"},
		// The class's mask in place of one that makes no sense.
		{"10.0.0.57", nil, "10.0.0.57/8"},
		{"172.16.0.57", nil, "172.16.0.57/16"},
		{"192.168.0.57", nil, "192.168.0.57/24"},
		{"192.168.0.57", mask("255.0.255.0"), "192.168.0.57/24"},
		{"192.168.0.57", mask("0.255.255.255"), "192.168.0.57/24"},
		{"192.168.0.57", mask("0.0.0.0"), "192.168.0.57/24"},
		{"192.168.0.57", mask("128.0.0.0"), "192.168.0.57/24"},
		{"192.168.0.57", []byte{255, 255, 255}, "192.168.0.57/24"},
		{"192.168.0.57", bytes.Repeat([]byte{255, 255, 0, 0}, 2), "192.168.0.57/24"},

		{"0.0.0.0", nil, ""},
		{"0.1.2.3", nil, ""},
		{"127.0.0.1", nil, ""},
		{"127.255.0.1", mask("255.0.0.0"), ""},
		{"224.0.0.1", nil, ""},
		{"239.1.2.3", nil, ""},
		{"240.0.0.1", nil, ""},
		{"255.255.255.255", nil, ""},
		{"10.0.0.0", mask("255.255.255.0"), ""},
		{"10.0.0.255", mask("255.255.255.0"), ""},
		{"10.0.0.3", mask("255.255.255.252"), ""},
		{"10.0.0.4", mask("255.255.255.252"), ""},
		{"10.255.255.255", nil, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s mask %d", tt.addr, tt.mask), func(t *testing.T) {
			b, err := bind(tt.addr, dhcpv4.Options{1: tt.mask})
			if tt.want == "" {
				if err == nil {
					t.Errorf("accepted as %v", b.Address)
				}
				return
			}
			if err != nil || b.Address.String() != tt.want {
				t.Errorf("got %v, %v, want %s", b.Address, err, tt.want)
			}
		})
	}
}

func TestBindingServer(t *testing.T) {
	for _, id := range [][]byte{nil, {}, {10, 0, 0}, {10, 0, 0, 1, 2}, {0, 0, 0, 0}, {255, 255, 255, 255}, {224, 0, 0, 1}, {127, 0, 0, 1}, {10, 0, 0, 1, 10, 0, 0, 1}} {
		if b, err := bind("10.0.0.57", dhcpv4.Options{54: id}); err == nil {
			t.Errorf("server identifier %v accepted as %v", id, b.Server)
		}
	}
}

func TestLeaseTimes(t *testing.T) {
	sec := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	tests := []struct {
		name              string
		lease, t1, t2     []byte
		want, wantT1, wT2 time.Duration // want 0: refused
	}{
		{"defaults", sec(3600), nil, nil, time.Hour, 30 * time.Minute, 3150 * time.Second},
		{"from the server", sec(3600), sec(10), sec(20), time.Hour, 10 * time.Second, 20 * time.Second},
		{"T1 only", sec(3600), sec(900), nil, time.Hour, 900 * time.Second, 3150 * time.Second},
		{"T2 only", sec(3600), nil, sec(3000), time.Hour, 3000 * time.Second / 7 * 4, 3000 * time.Second},
		{"small T2 only", sec(3600), nil, sec(700), time.Hour, 400 * time.Second, 700 * time.Second},
		{"T1 beyond T2", sec(3600), sec(3000), sec(1400), time.Hour, 800 * time.Second, 1400 * time.Second},
		{"T1 equals T2", sec(3600), sec(1400), sec(1400), time.Hour, 800 * time.Second, 1400 * time.Second},
		{"T2 beyond the lease", sec(3600), sec(1800), sec(7200), time.Hour, 1800 * time.Second, 3150 * time.Second},
		{"T2 equals the lease", sec(3600), sec(1800), sec(3600), time.Hour, 1800 * time.Second, 3150 * time.Second},
		{"T1 beyond the lease", sec(3600), sec(7200), nil, time.Hour, 30 * time.Minute, 3150 * time.Second},
		{"zeros", sec(3600), sec(0), sec(0), time.Hour, 30 * time.Minute, 3150 * time.Second},
		{"T1 infinite", sec(3600), sec(0xffffffff), sec(0xffffffff), time.Hour, 30 * time.Minute, 3150 * time.Second},
		{"wrong lengths", sec(3600), []byte{1}, []byte{1, 2, 3, 4, 5}, time.Hour, 30 * time.Minute, 3150 * time.Second},
		{"T1 and T2 close together", sec(10050), sec(9950), sec(10000), 10050 * time.Second, 9950 * time.Second, 10000 * time.Second},
		{"one second", sec(1), nil, nil, time.Second, 500 * time.Millisecond, 875 * time.Millisecond},
		{"one second with options", sec(1), sec(1), sec(1), time.Second, 500 * time.Millisecond, 875 * time.Millisecond},
		{"two seconds with options", sec(2), sec(1), sec(1), 2 * time.Second, 571 * time.Millisecond, time.Second},
		{"next to infinite", sec(0xfffffffe), nil, nil, 0xfffffffe * time.Second, 0x7fffffff * time.Second, 0xfffffffe * time.Second / 8 * 7},
		{"infinite", sec(0xffffffff), sec(10), sec(20), Infinite, Infinite / 2, Infinite / 8 * 7},
		{name: "none"},
		{name: "zero", lease: sec(0)},
		{name: "wrong length", lease: []byte{0, 0, 14}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			moved := false
			for range 200 {
				b, err := bind("10.0.0.57", dhcpv4.Options{51: tt.lease, 58: tt.t1, 59: tt.t2})
				if tt.want == 0 {
					if err == nil {
						t.Fatalf("accepted with %v", b.Lease)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				checkBinding(t, b)
				near := func(got, want time.Duration) bool {
					return (got - want).Abs() <= want/50+time.Millisecond
				}
				if b.Lease != tt.want || !near(b.T1, tt.wantT1) || !near(b.T2, tt.wT2) {
					t.Fatalf("got %v, %v, %v; want %v, %v, %v", b.Lease, b.T1, b.T2, tt.want, tt.wantT1, tt.wT2)
				}
				moved = moved || b.T1 != tt.wantT1
			}
			if !moved && tt.want != Infinite {
				t.Error("T1 is not fuzzed")
			}
		})
	}
}

func addrs(list ...string) []byte {
	var b []byte
	for _, s := range list {
		a := netip.MustParseAddr(s).As4()
		b = append(b, a[:]...)
	}
	return b
}

func TestRoutes(t *testing.T) {
	tests := []struct {
		name    string
		o3      []byte
		o33     []byte
		o121    []byte
		router  string
		routes  []string
		address string // default 10.0.0.57 in /24
	}{
		{name: "router", o3: addrs("10.0.0.1", "10.0.0.2"), router: "10.0.0.1"},
		{name: "first router on the link", o3: addrs("192.168.9.1", "10.0.0.2"), router: "10.0.0.2"},
		{name: "router off the link", o3: addrs("0.0.0.0", "192.168.9.1"), router: "192.168.9.1"},
		{name: "routers that are none", o3: addrs("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", "10.0.0.57")},
		{name: "router cut off", o3: []byte{10, 0, 0}},
		{name: "static", o3: addrs("10.0.0.1"), o33: addrs("172.16.0.0", "10.0.0.2", "192.168.5.0", "10.0.0.3", "192.168.5.7", "10.0.0.4", "0.0.0.0", "10.0.0.5"),
			router: "10.0.0.1", routes: []string{"172.16.0.0/16 10.0.0.2", "192.168.5.0/24 10.0.0.3", "192.168.5.7/32 10.0.0.4"}},
		{name: "static on the link", o33: addrs("172.16.0.0", "0.0.0.0")},
		{name: "classless alone", o121: append([]byte{0}, addrs("10.0.0.9")...), router: "10.0.0.9"},
		{name: "classless over the others", o3: addrs("10.0.0.1"), o33: addrs("172.16.0.0", "10.0.0.2"), o121: append([]byte{24, 192, 168, 7}, addrs("10.0.0.3")...),
			routes: []string{"192.168.7.0/24 10.0.0.3"}},
		{name: "classless with host bits", o121: append([]byte{12, 172, 31}, addrs("10.0.0.3")...), routes: []string{"172.16.0.0/12 10.0.0.3"}},
		{name: "classless on the link", o121: append([]byte{32, 169, 254, 169, 254}, addrs("0.0.0.0")...), routes: []string{"169.254.169.254/32 -"}},
		{name: "classless default on the link", o3: addrs("10.0.0.1"), o121: append([]byte{0}, addrs("0.0.0.0")...)},
		{name: "classless twice the same", o121: bytes.Join([][]byte{{24, 192, 168, 7}, addrs("10.0.0.3"), {24, 192, 168, 7}, addrs("10.0.0.4"), {0}, addrs("10.0.0.5"), {0}, addrs("10.0.0.6")}, nil),
			router: "10.0.0.5", routes: []string{"192.168.7.0/24 10.0.0.3"}},
		{name: "classless to where no route goes", o121: bytes.Join([][]byte{{8, 127}, addrs("10.0.0.3"), {4, 224}, addrs("10.0.0.3"), {8, 0}, addrs("10.0.0.3"), {32, 255, 255, 255, 255}, addrs("10.0.0.3")}, nil)},
		{name: "classless through who is no router", o121: bytes.Join([][]byte{{8, 11}, addrs("127.0.0.1"), {8, 12}, addrs("224.0.0.1"), {8, 13}, addrs("10.0.0.57"), {0}, addrs("255.255.255.255")}, nil)},
		{name: "default in halves", o121: bytes.Join([][]byte{{1, 0}, addrs("10.0.0.3"), {1, 128}, addrs("10.0.0.3")}, nil), routes: []string{"0.0.0.0/1 10.0.0.3", "128.0.0.0/1 10.0.0.3"}},
		{name: "classless malformed, width", o3: addrs("10.0.0.1"), o121: append([]byte{33, 1, 2, 3, 4, 5}, addrs("10.0.0.3")...), router: "10.0.0.1"},
		{name: "classless malformed, cut off", o3: addrs("10.0.0.1"), o121: []byte{24, 192, 168, 7, 10, 0, 0}, router: "10.0.0.1"},
		{name: "classless empty", o3: addrs("10.0.0.1"), o121: []byte{}, router: "10.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := bind("10.0.0.57", dhcpv4.Options{3: tt.o3, 33: tt.o33, 121: tt.o121})
			if err != nil {
				t.Fatal(err)
			}
			checkBinding(t, b)
			var router string
			if b.Router.IsValid() {
				router = b.Router.String()
			}
			var routes []string
			for _, r := range b.Routes {
				via := "-"
				if r.Via.IsValid() {
					via = r.Via.String()
				}
				routes = append(routes, r.Dst.String()+" "+via)
			}
			if diff := cmp.Diff(tt.routes, routes); diff != "" || router != tt.router {
				t.Errorf("router %q, want %q; routes (-want +got):\n%s", router, tt.router, diff)
			}
		})
	}
}

// However much a server sends, a binding stays small.
func TestBindingBounds(t *testing.T) {
	var many, classless, static, search []byte
	for i := range 250 {
		many = append(many, addrs(fmt.Sprintf("10.1.0.%d", i))...)
		classless = append(classless, append([]byte{24, 172, 20, byte(i)}, addrs("10.0.0.3")...)...)
		static = append(static, addrs(fmt.Sprintf("192.168.%d.0", i), "10.0.0.3")...)
		search = append(search, append([]byte{4}, fmt.Sprintf("n%03d\x00", i)...)...)
	}
	for _, options := range []dhcpv4.Options{{6: many, 42: many, 121: classless, 119: search}, {33: static}} {
		b, err := bind("10.0.0.57", options)
		if err != nil {
			t.Fatal(err)
		}
		checkBinding(t, b)
		if len(b.Routes) != maxRoutes {
			t.Errorf("%d routes", len(b.Routes))
		}
	}
}

func TestServerLists(t *testing.T) {
	b, err := bind("10.0.0.57", dhcpv4.Options{
		6:  addrs("10.0.0.1", "0.0.0.0", "224.0.0.251", "127.0.0.1", "255.255.255.255", "10.0.0.1", "8.8.8.8"),
		42: append(addrs("10.0.0.3"), 1, 2, 3),
		26: {0x02, 0x3f},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{serverA, netip.MustParseAddr("8.8.8.8")}
	if diff := cmp.Diff(want, b.DNS, cmpAddrs); diff != "" {
		t.Errorf("DNS (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("10.0.0.3")}, b.NTP, cmpAddrs); diff != "" {
		t.Errorf("NTP (-want +got):\n%s", diff)
	}
	if b.MTU != 0 {
		t.Errorf("MTU %d", b.MTU)
	}
}

func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		v    []byte
		want int
	}{{nil, 0}, {[]byte{5}, 0}, {[]byte{0, 68}, 0}, {[]byte{0x02, 0x3f}, 0}, {[]byte{0x02, 0x40}, 576}, {[]byte{0x05, 0xdc}, 1500}, {[]byte{0x23, 0x28}, 9000}, {[]byte{0, 0, 5, 0xdc}, 0}} {
		if got := mtu(tt.v); got != tt.want {
			t.Errorf("mtu(%v) = %d, want %d", tt.v, got, tt.want)
		}
	}
}

func TestDomainName(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := strings.Join([]string{label, label, label, label[:61]}, ".")
	tests := []struct{ in, want string }{
		{"example.org", "example.org"},
		{"Example-1.ORG", "Example-1.ORG"},
		{"_tcp.example.org", "_tcp.example.org"},
		{"example.org.", "example.org"},
		{"example.org\x00\x00", "example.org"},
		{"localhost", "localhost"},
		{longest, longest},
		{longest + "a", ""},
		{label + "a.org", ""},
		{"", ""},
		{".", ""},
		{"..", ""},
		{"a..b", ""},
		{".a", ""},
		{"a b", ""},
		{"example.org\nnameserver 6.6.6.6", ""},
		{"example.org\x00evil", ""},
		{"-a.org", ""},
		{"a-.org", ""},
		{"a\x7f", ""},
		{"ä.org", ""},
		{"a;b", ""},
		{"$(reboot)", ""},
	}
	for _, tt := range tests {
		if got := domainName([]byte(tt.in)); got != tt.want {
			t.Errorf("domainName(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestSearchList(t *testing.T) {
	label := "\x3f" + strings.Repeat("a", 63)
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{"none", "", nil},
		{"one", "\x01a\x03org\x00", []string{"a.org"}},
		{"two", "\x01a\x03org\x00\x01b\x00", []string{"a.org", "b"}},
		{"pointer", "\x01a\x03org\x00\x01b\xc0\x02", []string{"a.org", "b.org"}},
		{"whole name by pointer", "\x01a\x00\xc0\x00", []string{"a", "a"}},
		{"pointer to a pointer", "\x01a\x03org\x00\x01b\xc0\x02\x01c\xc0\x07", []string{"a.org", "b.org", "c.b.org"}},
		{"name behind a pointer", "\x01a\x00\x01b\xc0\x00\x01c\x00", []string{"a", "b.a", "c"}},
		{"invalid name left out", "\x03a\nb\x00\x01c\x00", []string{"c"}},
		{"dot in a label", "\x03a.b\x00\x01c\x00", []string{"c"}},
		{"root left out", "\x00\x01c\x00", []string{"c"}},
		{"pointer to itself", "\xc0\x00", nil},
		{"pointer forward", "\xc0\x02\x01a\x00", nil},
		{"pointers in a circle", "\x01a\xc0\x04\xc0\x00", nil},
		{"pointer into its own name", "\x01a\x01b\xc0\x02", nil},
		{"pointer cut off", "\x01a\x00\xc0", nil},
		{"label cut off", "\x05ab", nil},
		{"no end", "\x01a", nil},
		{"reserved label type", "\x41a\x00", nil},
		{"too long", label + label + label + label + "\x00", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, searchList([]byte(tt.in))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
