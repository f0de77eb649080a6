// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"mvdhcp/internal/lab"
)

// TestEngineIPAM takes containers on the engine's own macvlan driver through
// what befalls containers. Each test has a LAN to itself; the judges are the
// server's lease file, the wire and the kernel.
func TestEngineIPAM(t *testing.T) {
	s := newSite(t)
	for name, test := range map[string]func(*testing.T, *site){
		"first lease":                    firstLease,
		"ping":                           pingEachOther,
		"restart":                        restart,
		"restart of several":             restartOfSeveral,
		"stop, wait, start":              stopWaitStart,
		"rm -f":                          removeRunning,
		"crash":                          crash,
		"pause":                          pause,
		"disconnect, connect":            reconnect,
		"two networks":                   twoNetworks,
		"--ip":                           fixedIP,
		"--mac-address":                  fixedMAC,
		"reservations":                   reservations,
		"host name":                      hostNames,
		"no host name":                   noHostName,
		"server down at run":             downAtRun,
		"server down at restart":         downAtRestart,
		"server down past expiry":        downPastExpiry,
		"exit before the lease moved in": exitAtOnce,
		"non-root and read-only":         nonRoot,
		"never released":                 neverReleased,
		"network create refused":         createRefused,
		"the host is in the subnet":      hostInSubnet,
		"lease outside the subnet":       outsideSubnet,
		"calls twice at once":            twiceAtOnce,
		"a container that never comes":   neverComes,
		"taken over in the grace":        takenOver,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// TestEngineFleet starts thirty containers at once.
func TestEngineFleet(t *testing.T) {
	s := newSite(t)
	v := s.vlan(t, lab.ServerOptions{})
	const n = 30
	var names []string
	var wg sync.WaitGroup
	for i := range n {
		name := v.cname("f" + strconv.Itoa(i))
		names = append(names, name)
		wg.Go(func() {
			if out, err := v.try("run", "-d", "--name", name, "--network", v.name, "bb", "/bin/sleep", "600"); err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		})
	}
	v.containers = names
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[netip.Addr]bool{}
	for _, name := range names {
		b := &box{v: v, name: name}
		b.look()
		b.moved()
		if seen[b.addr] {
			t.Errorf("%v twice", b.addr)
		}
		seen[b.addr] = true
	}
	if got := len(v.server.Leases()); len(seen) != n || got != n {
		t.Errorf("%d addresses, the server holds %d leases", len(seen), got)
	}
}

func firstLease(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{T1: 6 * time.Second})
	got := v.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}", v.name)
	if want := v.lan.Subnet.String() + " " + v.server.Addr.String(); got != want {
		t.Errorf("network has %s, the LAN %s", got, want)
	}
	web := v.start("web")
	if !web.ping(v.server.Addr) {
		t.Error("the router is not reached")
	}
	if l := web.moved(); l.Parent != v.parent || l.Server != v.server.Addr.String() {
		t.Errorf("lease on %s of %s", l.Parent, l.Server)
	}
	if out := v.k.MustRun("leases"); !strings.Contains(out, "eth0@docker:"+web.name+"("+v.name+")") {
		t.Errorf("leases:\n%s", out)
	}
	v.await("the default route to be ours", func() bool { return slices.Equal(web.routers(), []string{v.server.Addr.String()}) })
	if n := v.releases(); n != 0 {
		t.Errorf("%d releases", n)
	}
	// From inside: unicast, from the leased address.
	v.wire.Wait(soon, "a unicast renewal", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, web.hw()) && p.SrcIP == web.addr && p.DstIP == v.server.Addr && p.DHCP.ClientIPAddr.String() == web.addr.String()
	})
	if r := web.routers(); !slices.Equal(r, []string{v.server.Addr.String()}) {
		t.Errorf("default routes via %v after the renewal", r)
	}
	for _, l := range v.h.Links() {
		if l.Name != "lo" && !strings.HasPrefix(l.Name, "up") && !strings.HasPrefix(l.Name, "veth") {
			t.Errorf("left in the host's namespace: %+v", l)
		}
	}
}

func pingEachOther(t *testing.T, s *site) {
	v, w := s.vlan(t, lab.ServerOptions{}), s.vlan(t, lab.ServerOptions{NoRouter: true}, "--gateway=10.255.255.254", "--subnet=10.0.0.0/8")
	web, db, far := v.start("web"), v.start("db"), w.start("far")
	if !web.ping(db.addr) || !db.ping(web.addr) {
		t.Errorf("%v and %v don't reach each other", web.addr, db.addr)
	}
	if web.ping(far.addr) || far.ping(web.addr) {
		t.Errorf("%v and %v reach each other", web.addr, far.addr)
	}
}

func restart(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web")
	web.moved()
	was := *web
	for range 2 {
		v.docker("restart", "-t", "0", web.name)
		web.look()
		if web.addr != was.addr {
			t.Errorf("address %v after the restart, %v before", web.addr, was.addr)
		}
		web.moved()
	}
	if n := v.releases(); n != 0 || len(v.server.Leases()) != 1 {
		t.Errorf("%d releases; the server holds %v", n, v.server.Leases())
	}
}

// Two that restart at once can't be told apart on this engine without a MAC of
// their own; nothing may be mixed up or lost.
func restartOfSeveral(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web, db := v.start("web", "--mac-address", "02:00:5e:00:00:01"), v.start("db", "--mac-address", "02:00:5e:00:00:02")
	plain := v.start("plain")
	was := []netip.Addr{web.addr, db.addr}
	for _, b := range []*box{web, db, plain} {
		b.moved()
	}
	v.docker("restart", "-t", "0", web.name, db.name, plain.name)
	v.docker("stop", "-t", "0", web.name, db.name, plain.name)
	v.docker("start", plain.name, db.name, web.name)
	for _, b := range []*box{web, db, plain} {
		b.look()
		b.moved()
	}
	if now := []netip.Addr{web.addr, db.addr}; !slices.Equal(now, was) {
		t.Errorf("addresses %v, before %v", now, was)
	}
	if plain.addr == web.addr || plain.addr == db.addr {
		t.Errorf("%v twice", plain.addr)
	}
}

func stopWaitStart(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web")
	web.moved()
	v.docker("stop", "-t", "0", web.name)
	if !web.held() {
		t.Error("released without a grace")
	}
	web.released()
	v.docker("start", web.name)
	web.look()
	web.moved()
}

func removeRunning(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "release-delay=0s")
	web := v.start("web")
	web.moved()
	v.docker("rm", "-f", web.name)
	web.released()
	v.server.WaitEmpty(soon)
}

func crash(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web", "--restart", "always")
	web.moved()
	was := *web
	pid, err := strconv.Atoi(v.docker("inspect", "-f", "{{.State.Pid}}", web.name))
	if err != nil || pid <= 1 {
		t.Fatalf("pid %d: %v", pid, err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	v.await("the restart", func() bool {
		f := strings.Fields(v.docker("inspect", "-f", "{{.RestartCount}} {{.State.Running}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", web.name))
		return len(f) == 3 && f[0] == "1" && f[1] == "true"
	})
	web.look()
	web.moved()
	if web.addr != was.addr || v.releases() != 0 {
		t.Errorf("address %v, before %v; %d releases", web.addr, was.addr, v.releases())
	}
}

func pause(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web")
	web.moved()
	v.docker("pause", web.name)
	v.k.MustRun("renew", "docker:"+web.name)
	v.docker("unpause", web.name)
	if !web.ping(v.server.Addr) || !web.held() || v.releases() != 0 {
		t.Errorf("after a pause: held %v, %d releases", web.held(), v.releases())
	}
}

func reconnect(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	web := v.start("web")
	web.moved()
	was := *web
	v.docker("network", "disconnect", v.name, web.name)
	v.docker("network", "connect", v.name, web.name)
	web.look()
	if web.addr != was.addr {
		t.Errorf("address %v, before %v", web.addr, was.addr)
	}
	web.moved()
	gone := *web
	v.docker("network", "disconnect", v.name, web.name)
	gone.released()
}

func twoNetworks(t *testing.T, s *site) {
	v, w := s.vlan(t, lab.ServerOptions{}), s.vlan(t, lab.ServerOptions{})
	web := v.start("web")
	v.docker("network", "connect", w.name, web.name)
	second := &box{v: w, name: web.name}
	second.look()
	web.moved()
	second.moved()
	if !web.ping(v.server.Addr) || !web.ping(w.server.Addr) {
		t.Error("one of the routers is not reached")
	}
	if r := web.routers(); len(r) == 0 {
		t.Error("no default route")
	}
	v.docker("network", "disconnect", w.name, web.name)
	second.released()
	if !web.held() || !web.ping(v.server.Addr) {
		t.Error("the first network went with the second")
	}
}

func fixedIP(t *testing.T, s *site) {
	v := s.bareVLAN(t, lab.ServerOptions{})
	v.create("--subnet", v.lan.Subnet.String())
	want := v.lan.Addr(1<<8 | 77)
	web := v.start("web", "--ip", want.String())
	if web.addr != want {
		t.Errorf("address %v, asked for %v", web.addr, want)
	}
	if n := v.wire.Match(func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeDiscover, web.hw()) && p.DHCP.RequestedIPAddress().String() == want.String()
	}); len(n) == 0 {
		t.Error("no DISCOVER with option 50")
	}
	web.moved()
	// The engine makes a new MAC at each start: the address is the key.
	v.docker("restart", "-t", "0", web.name)
	web.look()
	if web.addr != want {
		t.Errorf("address %v after the restart, asked for %v", web.addr, want)
	}
	web.moved()
	before := len(v.server.Leases())
	v.containers = append(v.containers, v.cname("other"))
	v.refused([]string{v.lan.Addr(7).String(), v.parent}, "run", "-d", "--name", v.cname("other"), "--network", v.name, "--ip", v.lan.Addr(7).String(), "bb", "/bin/sleep", "600")
	if now := v.server.Leases(); len(now) != before || len(v.leases()) != 1 {
		t.Errorf("left by the refused run: %v, %v", now, v.leases())
	}
}

func fixedMAC(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{})
	const mac = "02:00:5e:00:01:01"
	web := v.start("web", "--mac-address", mac)
	if web.mac != mac {
		t.Errorf("MAC %s, asked for %s", web.mac, mac)
	}
	was := web.addr
	web.moved()
	v.docker("stop", "-t", "0", web.name)
	db := v.start("db") // starts in the grace, and is not web
	v.docker("start", web.name)
	web.look()
	if web.addr != was || db.addr == was {
		t.Errorf("web has %v, before %v; db %v", web.addr, was, db.addr)
	}
	v.containers = append(v.containers, v.cname("twin"))
	v.refused([]string{mac, "--mac-address"}, "run", "-d", "--name", v.cname("twin"), "--network", v.name, "--mac-address", mac, "bb", "/bin/sleep", "600")
	if !web.held() || !web.ping(v.server.Addr) {
		t.Error("the refused twin took web's lease along")
	}
}

func reservations(t *testing.T, s *site) {
	const byMAC, byID = "02:00:5e:00:02:01", "02:00:5e:00:02:02"
	v := s.bareVLAN(t, lab.ServerOptions{})
	first, second := v.lan.Addr(200), v.lan.Addr(201)
	v.server.Stop()
	v.server.Options.Reserved = map[string]netip.Addr{byMAC: first}
	v.server.Options.Extra = []string{"--dhcp-host=id:01:" + byID + "," + second.String()}
	v.server.Start()
	v.create("--ipam-opt", "client-id=mac") // else engine 29 tells the name, and it follows from that
	if web := v.start("web", "--mac-address", byMAC); web.addr != first {
		t.Errorf("address %v, reserved by MAC %v", web.addr, first)
	}
	db := v.start("db", "--mac-address", byID)
	if db.addr != second {
		t.Errorf("address %v, reserved by client identifier %v", db.addr, second)
	}
	v.docker("restart", "-t", "0", db.name)
	db.look()
	if db.addr != second {
		t.Errorf("address %v after a restart, reserved %v", db.addr, second)
	}
}

func hostNames(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{Extra: []string{"--port=53"}})
	web, db := v.start("web", "--hostname", "webhost"), v.start("db")
	for want, b := range map[string]*box{"webhost": web, db.name: db} {
		v.server.WaitLeases(soon, "name "+want, func(ls []lab.ServerLease) bool {
			return slices.ContainsFunc(ls, func(l lab.ServerLease) bool { return l.Addr == b.addr && l.Hostname == want })
		})
		if out := v.docker("exec", web.name, "/bin/busybox", "nslookup", "-type=a", want+".lab.test", v.server.Addr.String()); !strings.Contains(out, b.addr.String()) {
			t.Errorf("the server's DNS says of %s: %s", want, out)
		}
	}
}

func noHostName(t *testing.T, s *site) {
	v := s.vlan(t, lab.ServerOptions{}, "--ipam-opt", "hostname=off")
	web := v.start("web", "--hostname", "webhost")
	web.moved()
	v.k.MustRun("renew", "docker:"+web.name)
	if l, _ := v.server.Lease(web.mac); l.Hostname != "" {
		t.Errorf("the server was told %q", l.Hostname)
	}
}
