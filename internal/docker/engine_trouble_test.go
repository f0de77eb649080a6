// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/lab"
)

// TestEngineKeeperGrace kills the keeper while a released address is in its
// grace: the next one ends it.
func TestEngineKeeperGrace(t *testing.T) {
	s := newSite(t)
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "release-delay=4s")
	web := v.start("web")
	web.moved()
	v.docker("stop", "-t", "0", web.name)
	v.k.Kill9()
	v.k.Start()
	if !web.held() {
		t.Error("released before its time")
	}
	web.released()
}

func downAtRun(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "timeout=3s")
	v.server.Freeze()
	v.containers = append(v.containers, v.cname("web"))
	v.refused([]string{v.parent, "3s", "mvdhcp probe --parent " + v.parent}, "run", "-d", "--name", v.cname("web"), "--network", v.name, "bb", "/bin/sleep", "600")
	if ls := v.leases(); len(ls) != 0 {
		t.Errorf("left: %v", ls)
	}
	v.server.Thaw()
	v.docker("start", v.cname("web"))
	web := &box{v: v, name: v.cname("web")}
	web.look()
	web.moved()
}

// A lease that is held and valid outlasts a server that is silent (RFC 2131,
// 3.2).
func downAtRestart(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "timeout=6s")
	const mac = "02:00:5e:00:03:01"
	web := v.start("web", "--mac-address", mac)
	web.moved()
	was := web.addr
	v.server.Freeze()
	v.docker("restart", "-t", "0", web.name)
	web.look()
	if web.addr != was {
		t.Errorf("address %v, before %v", web.addr, was)
	}
	v.server.Thaw()
	web.moved()
	v.k.MustRun("renew", "docker:"+web.name)
}

func downPastExpiry(t *testing.T, s *site) {
	// dnsmasq's shortest lease is two minutes.
	v := s.served(t, s.l.Kea, lab.ServerOptions{Lease: 20 * time.Second, T1: 5 * time.Second, T2: 10 * time.Second})
	v.create()
	web := v.start("web")
	web.moved()
	v.server.Freeze()
	mark := v.wire.Mark()
	v.wire.WaitAfter(mark, soon, "a renewal past T1", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, web.hw()) && p.DstIP == v.server.Addr
	})
	v.wire.WaitAfter(mark, soon, "a rebinding past T2", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, web.hw()) && p.L3Broadcast()
	})
	if !web.held() {
		t.Error("the address went before the lease did")
	}
	v.wire.WaitAfter(mark, soon, "DISCOVER past expiry", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, web.hw()) })
	if _, addrs := web.link(); len(addrs) != 0 {
		t.Errorf("still there past expiry: %v", addrs)
	}
	v.server.Thaw()
	v.await("the address to come back", func() bool {
		_, addrs := web.link()
		return len(addrs) == 1 && addrs[0].IP.String() == web.addr.String() && web.held()
	})
	v.await("the default route to come back", func() bool { return slices.Equal(web.routers(), []string{v.server.Addr.String()}) })
	if !web.ping(v.server.Addr) {
		t.Error("the router is not reached")
	}
}

func exitAtOnce(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "release-delay=0s")
	for range 3 {
		v.docker("run", "--rm", "--network", v.name, "bb", "/bin/busybox", "true")
	}
	v.server.WaitEmpty(soon)
	if n := v.releases(); n != 3 {
		t.Errorf("%d releases", n)
	}
}

func nonRoot(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web", "--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
	web.moved()
	v.k.MustRun("renew", "docker:"+web.name)
	v.docker("restart", "-t", "0", web.name)
	web.look()
	web.moved()
}

func neverReleased(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "release-delay=never")
	web := v.start("web", "--mac-address", "02:00:5e:00:04:01")
	was := web.addr
	web.moved()
	v.docker("stop", "-t", "0", web.name)
	v.docker("rm", web.name)
	v.docker("network", "rm", v.name)
	v.create("--ipam-opt", "release-delay=never")
	web = v.start("web", "--mac-address", "02:00:5e:00:04:01")
	web.moved()
	if web.addr != was || v.releases() != 0 {
		t.Errorf("address %v, before %v; %d releases", web.addr, was, v.releases())
	}
	v.docker("rm", "-f", web.name)
	v.k.MustRun("release", web.mac)
}

func createRefused(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--ipv6"}, []string{"IPv6", "--ipv6"}},
		{[]string{"--ipv6", "--subnet", "2001:db8::/64"}, []string{"IPv6", "--ipv6"}},
		{[]string{"--ipam-opt", "colour=red"}, []string{"colour", "parent, mode"}},
		{[]string{"--ipam-opt", "mode=fancy"}, []string{"--ipam-opt mode", "fancy", "bridge"}},
		{[]string{"--ipam-opt", "client-id=web"}, []string{"--ipam-opt client-id=web", "mac"}},
		{[]string{"--ipam-opt", "hostname=maybe"}, []string{"--ipam-opt hostname=maybe", "on or off"}},
		{[]string{"--ipam-opt", "allow-server=router"}, []string{"--ipam-opt allow-server", "router"}},
		{[]string{"--ipam-opt", "deny-server=1.2.3"}, []string{"--ipam-opt deny-server", "1.2.3"}},
		{[]string{"--ipam-opt", "conflict-check=no"}, []string{"--ipam-opt conflict-check", "fast"}},
		{[]string{"--ipam-opt", "timeout=1"}, []string{"--ipam-opt timeout=1", "10s"}},
		{[]string{"--ipam-opt", "timeout=1h"}, []string{"--ipam-opt timeout=1h", "10m"}},
		{[]string{"--ipam-opt", "release-delay=soon"}, []string{"--ipam-opt release-delay=soon", "never"}},
		{[]string{"--subnet", v.lan.Subnet.String(), "--ip-range", v.lan.Subnet.String()}, []string{"--ip-range"}},
		{[]string{"--subnet", v.lan.Subnet.String(), "--aux-address", "x=" + v.lan.Addr(9).String()}, []string{"--aux-address"}},
		{[]string{"--ipam-opt", "parent=nic9"}, []string{"nic9", "no such interface"}},
		{[]string{"--ipam-opt", "parent=lo"}, []string{"lo", "loopback"}},
		{[]string{"--ipam-opt", "parent=" + v.parent + ".5000"}, []string{v.parent + ".5000", "4094"}},
		{[]string{"--ipam-opt", "parent="}, []string{"no parent", "--ipam-opt parent=IF"}},
	} {
		v.refused(c.words, v.createArgs(c.args...)...)
	}
	v.refused([]string{"no parent", "--ipam-opt parent=IF"}, "network", "create", "-d", "macvlan", "--ipam-driver", v.driver, "-o", "parent="+v.parent, v.name)
	v.server.Freeze()
	for _, typed := range [][]string{nil, {"--subnet", v.lan.Subnet.String()}} {
		v.refused([]string{v.parent, "2s", "mvdhcp doctor --parent " + v.parent}, v.createArgs(append(typed, "--ipam-opt", "timeout=2s")...)...)
	}
	v.server.Thaw()
	if out := v.docker("network", "ls", "--format", "{{.Name}}"); strings.Contains(out, v.name+"\n") {
		t.Errorf("networks: %s", out)
	}
}

// An engine before 27.0.1 asks for pools for ever when the host has an address
// in the one it gets, later ones take it.
func hostInSubnet(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	v.h.AddAddr(v.parent, netip.PrefixFrom(v.lan.Addr(50), 16).String())
	mark := v.wire.Mark()
	if v.major() >= 28 {
		v.create()
	} else {
		v.refused([]string{"--subnet", v.parent}, v.createArgs()...)
		v.create("--subnet", v.lan.Subnet.String())
	}
	if n := len(v.wire.After(mark)); n > 20 {
		t.Errorf("%d packets for one network", n)
	}
	web := v.start("web")
	web.moved()
}

func outsideSubnet(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	v.create("--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1")
	v.containers = append(v.containers, v.cname("web"))
	v.refused([]string{"--subnet 192.0.2.0/24", v.lan.Addr(0).String()[:6]}, "run", "-d", "--name", v.cname("web"), "--network", v.name, "bb", "/bin/sleep", "600")
	v.server.WaitEmpty(soon)
	if ls := v.leases(); len(ls) != 0 {
		t.Errorf("left: %v", ls)
	}
}

// twiceAtOnce repeats one call of the engine while the first is under way.
func twiceAtOnce(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	pool := v.pool("")
	const mac = "02:42:00:00:05:01"
	got := make([]string, 4)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = v.address(pool, "", mac, "") })
	}
	wg.Wait()
	if slices.Sort(got); got[0] == "" || got[0] != got[3] {
		t.Errorf("answers %q", got)
	}
	if ls := v.server.Leases(); len(ls) != 1 || v.server.Count(dhcpv4.MessageTypeAck, mac) != 1 {
		t.Errorf("the server holds %v and has sent %d ACKs", ls, v.server.Count(dhcpv4.MessageTypeAck, mac))
	}
	v.release(pool, got[0])
}

// neverComes asks for an address as the engine does and makes no container; the
// engine knows nothing of it.
func neverComes(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	pool := v.pool("")
	events := v.k.Command("events")
	if v.address(pool, "", "02:42:00:00:06:01", "") == "" || len(v.server.Leases()) != 1 {
		t.Fatalf("the server holds %v", v.server.Leases())
	}
	v.server.WaitLeases(2*time.Minute, "none left", func(ls []lab.ServerLease) bool { return len(ls) == 0 })
	events.AwaitOutput(soon, "never came")
}

// An address that somebody else has by the end of its grace is not released from
// under them.
func takenOver(t *testing.T, s *site) {
	v := s.served(t, s.l.Kea, lab.ServerOptions{Lease: 20 * time.Second})
	v.create()
	other := s.l.Host("other-" + v.name)
	other.Plug("wire", v.lan)
	web := v.start("web")
	web.moved()
	v.docker("stop", "-t", "0", web.name)
	other.AddAddr("wire", netip.PrefixFrom(web.addr, 16).String())
	v.await("the keeper to let go of "+web.addr.String(), func() bool { return len(v.leases()) == 0 })
	if n := v.releases(); n != 0 || !web.held() {
		t.Errorf("%d releases, held %v", n, web.held())
	}
}
