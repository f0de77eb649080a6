// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

func target(p *lab.Process) string { return fmt.Sprintf("pid:%d", p.PID) }

// routes are the container's routes as text, but for the subnet's.
func routes(c *lab.Container) []string {
	out := []string{}
	for _, r := range c.Routes() {
		if r.Via.IsValid() || r.Dst.Bits() == 32 {
			out = append(out, r.String())
		}
	}
	return out
}

// TestAttach looks at what an attach leaves in the kernel and at the server.
func TestAttach(t *testing.T) {
	s := newSite(t)
	// RFC 3442: option 121 makes a client ignore options 3 and 33.
	server := s.Dnsmasq(lab.ServerOptions{Lease: 10 * time.Minute, Extra: []string{
		"--dhcp-option=option:mtu,1400",
		"--dhcp-option=option:static-route,172.16.5.5,10.80.0.9",
		"--dhcp-option=tag:cls,option:classless-static-route,0.0.0.0/0,10.80.0.2,192.168.7.0/24,10.80.0.3",
		"--dhcp-mac=set:cls,02:c1:*:*:*:*",
	}})
	lan := s.LAN("lan")
	cases := map[string]struct {
		args   []string
		mode   string
		mtu    int
		routes []string
	}{
		"plain":       {nil, "bridge", 1400, []string{"0.0.0.0/0 via 10.80.0.1 dev eth0", "172.16.5.5/32 via 10.80.0.9 dev eth0"}},
		"classless":   {[]string{"--mac", "02:c1:00:00:00:01"}, "bridge", 1400, []string{"0.0.0.0/0 via 10.80.0.2 dev eth0", "192.168.7.0/24 via 10.80.0.3 dev eth0"}},
		"defaultonly": {[]string{"--mac", "02:c1:00:00:00:02", "--routes", "default"}, "bridge", 1400, []string{"0.0.0.0/0 via 10.80.0.2 dev eth0"}},
		"noroutes":    {[]string{"--routes", "none"}, "bridge", 1400, []string{}},
		"metric":      {[]string{"--metric", "77", "--routes", "default"}, "bridge", 1400, []string{"0.0.0.0/0 via 10.80.0.1 dev eth0 metric 77"}},
		"private":     {[]string{"--mode", "private", "--mtu", "1300", "--routes", "none"}, "private", 1300, []string{}},
		"vepa":        {[]string{"--mode", "vepa", "--routes", "none"}, "vepa", 1400, []string{}},
	}
	s.h.SetLink(lab.Uplink, false) // the first attach brings it up
	for name, tc := range cases {
		c := s.Container(name)
		l := s.attach(c, append(tc.args, "--hostname", name)...)
		a := c.Addr("eth0")
		if a.Prefix.String() != l.Address || !lan.Subnet.Contains(a.Prefix.Addr()) || a.Prefix.Bits() != 16 {
			t.Errorf("%s: address %v, the lease says %s", name, a.Prefix, l.Address)
		}
		if a.Valid > 10*time.Minute || a.Valid < 9*time.Minute || a.Preferred > a.Valid {
			t.Errorf("%s: valid_lft %v, preferred_lft %v, lease 10m", name, a.Valid, a.Preferred)
		}
		link, _ := c.Link("eth0")
		if link.Type != "macvlan" || link.Mode != tc.mode || link.MTU != tc.mtu || link.MAC.String() != l.MAC || !link.Up {
			t.Errorf("%s: link %+v, want mode %s, MTU %d, MAC %s", name, link, tc.mode, tc.mtu, l.MAC)
		}
		if diff := cmp.Diff(tc.routes, routes(c)); diff != "" {
			t.Errorf("%s: routes (-want +got):\n%s", name, diff)
		}
		entry, ok := server.Lease(l.MAC)
		want := lab.ServerLease{Expiry: entry.Expiry, MAC: l.MAC, Addr: a.Prefix.Addr(), Hostname: name, ClientID: "01" + strings.ReplaceAll(l.MAC, ":", "")}
		if !ok || !cmp.Equal(want, entry, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
			t.Errorf("%s: the server's line is %+v, want %+v", name, entry, want)
		}
		s.wire.Wait(soon, "announcement of "+l.Address, func(p lab.Packet) bool {
			return p.ARP != nil && p.ARP.Announcement() && p.ARP.SenderIP == a.Prefix.Addr() && p.ARP.SenderMAC.String() == l.MAC
		})
		if _, err := c.Ping(server.Addr, soon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSeveralChildren gives one namespace children on one parent and on two.
func TestSeveralChildren(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	s.h.Plug("up1", s.LAN("lan"))
	c := s.Container("c")
	got := map[string]api.Lease{}
	for ifname, args := range map[string][]string{"eth0": {"--ifname", "eth0"}, "eth1": {"--ifname", "eth1"}, "lan7": {"--ifname", "lan7", "--parent", "up1"}} {
		l := s.attach(c, args...)
		if l.Ifname != ifname || c.Addr(ifname).Prefix.String() != l.Address {
			t.Errorf("%s: lease %+v, address %v", ifname, l, c.Addr(ifname))
		}
		got[l.Address] = l
	}
	if len(got) != 3 || len(server.Leases()) != 3 {
		t.Errorf("%d addresses, %d leases at the server, want 3 and 3", len(got), len(server.Leases()))
	}
	// With no name given, the next free one is taken.
	other := s.Container("other")
	if first := s.attach(other); first.Ifname != "eth0" {
		t.Errorf("the first child is called %s, want eth0", first.Ifname)
	}
	other2 := s.attach(other, "--parent", "up1")
	if other2.Ifname != "eth1" {
		t.Errorf("the second child is called %s, want eth1", other2.Ifname)
	}
	s.k.MustRun("detach", c.Target(), "--ifname", "eth1")
	if _, there := c.Link("eth1"); there || len(c.Links()) != 2 {
		t.Errorf("detach --ifname eth1 leaves %+v", c.Links())
	}
	server.WaitLeases(soon, "four", func(ls []lab.ServerLease) bool { return len(ls) == 4 })
	s.k.MustRun("detach", c.Target())
	s.k.MustRun("detach", other.Target())
	server.WaitEmpty(soon)
	s.bare(c)
	s.bare(other)
}

// TestDNS writes the lease's name servers where the target reads them, and puts
// back what was there.
func TestDNS(t *testing.T) {
	const before = "# mine\nnameserver 192.0.2.1\noptions ndots:2\n"
	s := newSite(t)
	s.Dnsmasq(lab.ServerOptions{Extra: []string{"--dhcp-option=option:domain-search,a.test,b.test", "--dhcp-option=option:ntp-server,10.80.0.123"}})
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	c := s.Container("c")
	p, root := c.SleepInRoot(map[string]string{"etc/resolv.conf": before})
	named := s.Container("named")
	file := netnsFile(named)
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(file)) })
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	for target, path := range map[string]string{target(p): filepath.Join(root, "etc/resolv.conf"), named.Target(): file} {
		l := s.attachTarget(target, "--dns")
		if !slices.Equal(l.NTP, []string{"10.80.0.123"}) || l.Domain != "lab.test" || !slices.Equal(l.Search, []string{"a.test", "b.test"}) {
			t.Errorf("%s: the lease records %+v", target, l)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "nameserver 10.80.0.53\n") || !strings.Contains(string(text), " a.test b.test\n") || strings.Contains(string(text), "192.0.2.1") {
			t.Errorf("%s: resolv.conf %q, %v", target, text, err)
		}
		s.k.MustRun("detach", target)
		if text, err := os.ReadFile(path); err != nil || string(text) != before {
			t.Errorf("%s: after detach resolv.conf is %q, %v; want %q", target, text, err, before)
		}
	}
	if now, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(now) != string(host) {
		t.Errorf("the host's resolv.conf has changed: %q, %v", now, err)
	}
}
