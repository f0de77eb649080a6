// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// create makes a network of the driver on the host's first parent.
func (s *site) create(name string, args ...string) {
	s.t.Helper()
	s.docker(append(append([]string{"network", "create", "-d", s.driver, "-o", "parent=" + lab.Uplink}, args...), name)...)
}

// on is a container's address and MAC on a network, as the engine says.
func (s *site) on(name, network string) (addr, mac string) {
	s.t.Helper()
	f := strings.Fields(s.docker("inspect", "-f", fmt.Sprintf(`{{with index .NetworkSettings.Networks %q}}{{.IPAddress}} {{.MacAddress}}{{end}}`, network), name))
	if len(f) != 2 {
		s.t.Fatalf("%s has no address on %s", name, network)
	}
	return f[0], f[1]
}

// lifetime waits until a container's address has one, and fails when it gets none.
func (s *site) lifetime(name, ifname string) {
	s.t.Helper()
	s.await("a lifetime of the address of "+name, func() bool {
		return strings.Contains(s.docker("exec", name, "/bin/ip", "addr", "show", ifname), "dynamic")
	})
}

// clean checks that nothing is left of what a container had: no lease that is
// in use, no link on the host, no record.
func (s *site) clean() {
	s.t.Helper()
	s.await("no lease left", func() bool {
		var ls []api.Lease
		s.k.JSON(&ls, "leases", "--json")
		return len(ls) == 0
	})
	if links := s.links(); len(links) > 0 {
		s.t.Errorf("links left on the host: %v", links)
	}
}

// links are the parked links in the host's namespace.
func (s *site) links() (found []string) {
	s.t.Helper()
	for _, l := range s.h.Links() {
		if strings.HasPrefix(l.Name, "mv") {
			found = append(found, l.Name)
		}
	}
	return found
}

// freed waits until the server has no lease of the MAC.
func (s *site) freed(mac string) {
	s.t.Helper()
	s.await("release of "+mac, func() bool { _, ok := s.server.Lease(mac); return !ok })
}

// TestDriver takes containers on the network driver with null IPAM through
// their lives; the judge is the server's lease file and the kernel.
func TestDriver(t *testing.T) {
	s := newPlant(t)
	s.create("lan", "--ipam-driver", "null", "-o", "release-delay=1s", "-o", "timeout=3s")
	s.run("web")
	webIP, webMAC := s.of("web")
	if !s.held(webIP, webMAC) {
		t.Fatalf("server does not hold %s %s: %v", webIP, webMAC, s.server.Leases())
	}
	l := s.moved("web")
	if l.MAC != webMAC || !strings.HasPrefix(l.Address, webIP+"/") || l.Ifname != "eth0" || l.Identity != "docker:lan/web" {
		t.Errorf("lease %+v, container %s %s", l, webMAC, webIP)
	}
	if lease, _ := s.server.Lease(webMAC); lease.Hostname != "web" || lease.ClientID != "01"+strings.ReplaceAll(webMAC, ":", "") {
		t.Errorf("server holds %+v", lease)
	}
	s.lifetime("web", "eth0")
	if out := s.docker("exec", "web", "/bin/ip", "route"); strings.Count(out, "default") != 1 || !strings.Contains(out, "default via "+s.server.Addr.String()) {
		t.Errorf("routes:\n%s", out)
	}

	t.Run("containers reach each other", func(t *testing.T) {
		s.run("db")
		ip, mac := s.of("db")
		if ip == webIP || mac == webMAC || !s.held(ip, mac) {
			t.Errorf("db has %s %s, web %s %s", ip, mac, webIP, webMAC)
		}
		s.docker("exec", "db", "/bin/ping", "-c1", "-W5", webIP)
		s.docker("rm", "-f", "db")
		s.freed(mac)
	})
	t.Run("a restart keeps MAC and address", func(t *testing.T) {
		s.docker("restart", "-t", "0", "web")
		if ip, mac := s.of("web"); ip != webIP || mac != webMAC || !s.held(ip, mac) {
			t.Errorf("%s %s, before %s %s", ip, mac, webIP, webMAC)
		}
		s.moved("web")
	})
	t.Run("a container of the same name has the MAC again", func(t *testing.T) {
		s.docker("rm", "-f", "web")
		s.freed(webMAC)
		s.clean()
		s.docker("create", "--name", "other", "--network", "lan", "bb", "/bin/sleep", "600") // does not confuse
		s.run("web")
		if ip, mac := s.of("web"); mac != webMAC || !s.held(ip, mac) {
			t.Errorf("%s %s, before %s %s", ip, mac, webIP, webMAC)
		}
		s.docker("rm", "-f", "other")
		s.moved("web")
	})
	t.Run("stop, a long wait, start", func(t *testing.T) {
		s.docker("stop", "-t", "0", "web")
		s.freed(webMAC)
		s.clean()
		s.docker("start", "web")
		if ip, mac := s.of("web"); mac != webMAC || !s.held(ip, mac) {
			t.Errorf("%s %s, before %s %s", ip, mac, webIP, webMAC)
		}
		s.moved("web")
	})
	t.Run("disconnect and connect", func(t *testing.T) {
		s.docker("network", "disconnect", "lan", "web")
		s.freed(webMAC)
		s.docker("network", "connect", "--driver-opt", "identity=web-2", "--driver-opt", "hostname=two", "lan", "web")
		ip, mac := s.of("web")
		if lease, ok := s.server.Lease(mac); !ok || lease.Addr.String() != ip || lease.Hostname != "two" {
			t.Errorf("server holds %+v", lease)
		}
		if l := s.moved("web"); l.Identity != "web-2" {
			t.Errorf("lease of %s", l.Identity)
		}
		s.docker("rm", "-f", "web")
		s.freed(mac)
	})
	t.Run("an address asked for", func(t *testing.T) { s.askedFor(t) })
	t.Run("bad options are refused", func(t *testing.T) { s.refuses(t) })
	t.Run("no server: fails in time and leaves nothing", func(t *testing.T) {
		s.server.Stop()
		out, err := s.try("run", "--rm", "--name", "web", "--network", "lan", "bb", "/bin/ip", "addr")
		if err == nil || !strings.Contains(out, "no lease on up0 within 3s") || !strings.Contains(out, "mvdhcp probe") {
			t.Errorf("%v: %s", err, out)
		}
		s.server.Start()
		s.docker("rm", "-f", "web")
		s.clean()
		s.server.WaitEmpty(soon)
	})
	t.Run("network rm", func(t *testing.T) {
		s.docker("network", "rm", "lan")
		s.clean()
	})
}

func (s *site) askedFor(t *testing.T) {
	want := s.server.Options.LAN.Addr(7<<8 | 7).String()
	opt := func(ip string) string { return "name=lan,driver-opt=ip=" + ip }
	s.docker("run", "-d", "--name", "web", "--network", opt(want), "bb", "/bin/sleep", "600")
	ip, mac := s.of("web")
	if ip != want || !s.held(want, mac) {
		t.Errorf("%s, asked for %s", ip, want)
	}
	out, err := s.try("run", "--rm", "--name", "db", "--network", opt(want), "bb", "/bin/sleep", "600")
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("taken address: %v: %s", err, out)
	}
	s.docker("rm", "-f", "db")
	s.docker("rm", "-f", "web")
	s.freed(mac)
	s.run("web", "--mac-address", "02:aa:bb:cc:dd:01")
	if ip, mac := s.of("web"); mac != "02:aa:bb:cc:dd:01" || !s.held(ip, mac) {
		t.Errorf("%s %s", ip, mac)
	}
	s.docker("rm", "-f", "web")
	s.freed("02:aa:bb:cc:dd:01")
	s.clean()
}

func (s *site) refuses(t *testing.T) {
	null := []string{"--ipam-driver", "null", "-o", "parent=" + lab.Uplink}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{append(null, "-o", "colour=red"), "-o colour is unknown: mvdhcp takes allow-server, client-id, "},
		{append(null, "-o", "mode=passthru"), `-o mode "passthru": give one of bridge, private, vepa`},
		{append(null, "-o", "mtu=99999"), "-o mtu 99999: give a number from 576"},
		{append(null, "-o", "client-id=web"), "give mac, duid or identity"},
		{append(null, "-o", "timeout=soon"), "-o timeout=soon: give a duration"},
		{[]string{"--ipam-driver", s.driver, "--ipam-opt", "parent=" + lab.Uplink, "--ipv6"}, "IPv6 is not served"},
		{[]string{"--ipam-driver", "null"}, "no parent: give -o parent=IF"},
		{[]string{"--ipam-driver", "null", "-o", "parent=nosuch"}, "parent nosuch"},
		{[]string{"--subnet", "10.9.0.0/24", "-o", "parent=" + lab.Uplink}, "--ipam-driver null"},
		{[]string{"--ipam-driver", s.driver, "--ipam-opt", "parent=" + lab.Uplink, "-o", "parent=" + lab.Uplink, "-o", "user-class=x"}, "give --ipam-opt user-class=x"},
	} {
		out, err := s.try(append(append([]string{"network", "create", "-d", s.driver}, tt.args...), "bad")...)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v: %v: %s, want %q", tt.args, err, out, tt.want)
			s.try("network", "rm", "bad")
		}
	}
	for opt, want := range map[string]string{
		"colour=red": "--driver-opt colour is unknown: mvdhcp takes client-id, hostname, identity, ip",
		"ip=10.80":   `--driver-opt ip "10.80": not an IPv4 address`,
	} {
		out, err := s.try("run", "--rm", "--name", "db", "--network", "name=lan,driver-opt="+opt, "bb", "/bin/sleep", "1")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s, want %q", opt, err, out, want)
		}
		s.try("rm", "-f", "db")
	}
	s.clean()
}

// TestDriverRoutes looks at what a container has when its first process starts:
// the routes of option 121 and the MTU of option 26.
func TestDriverRoutes(t *testing.T) {
	l := lab.New(t)
	lan := l.LAN("lan")
	router, other := lan.Addr(1).String(), lan.Addr(9).String()
	s := newPlantOn(t, l, lab.ServerOptions{Extra: []string{
		"--dhcp-option=121,0.0.0.0/0," + router + ",10.99.0.0/16," + other, "--dhcp-option=26,1400",
	}})
	s.create("lan", "--ipam-driver", "null", "-o", "release-delay=0s", "-o", "ifname-prefix=lan")
	s.create("beside", "--ipam-driver", "null", "-o", "release-delay=0s", "-o", "mtu=1300") // a second network on the parent
	s.h.Plug("up1", l.LAN("two"))
	second := l.Dnsmasq(lab.ServerOptions{LAN: l.LAN("two"), Name: "second", Extra: []string{
		fmt.Sprintf("--dhcp-option=121,0.0.0.0/0,%v,10.99.0.0/16,%v", l.LAN("two").Addr(1), l.LAN("two").Addr(9)),
	}})
	s.docker("network", "create", "-d", s.driver, "--ipam-driver", "null", "-o", "release-delay=0s", "-o", "parent=up1", "two")
	s.create("cold", "--ipam-driver", "null", "-o", "release-delay=0s", "-o", "routes=none")
	s.create("far", "--ipam-driver", "null", "-o", "release-delay=0s", "-o", "metric=50")
	now := func(network string) string {
		t.Helper()
		return s.docker("run", "--rm", "--name", "once", "--network", network, "bb", "/bin/sh", "-c", "/bin/ip route; /bin/ip link")
	}
	for network, want := range map[string][]string{
		"lan":    {"default via " + router + " dev lan0", "10.99.0.0/16 via " + other + " dev lan0", "mtu 1400"},
		"beside": {"default via " + router + " dev eth0", "10.99.0.0/16 via " + other + " dev eth0", "mtu 1300"},
		"cold":   {"mtu 1400"},
		"far":    {"mtu 1400", "dev eth0"},
	} {
		out := now(network)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s lacks %q:\n%s", network, w, out)
			}
		}
		if len(want) == 1 && strings.Contains(out, "default") {
			t.Errorf("%s has a default route:\n%s", network, out)
		}
	}
	s.clean()

	t.Run("two networks, both with those routes", func(t *testing.T) {
		s.run("web")
		s.docker("network", "connect", "two", "web")
		s.docker("restart", "-t", "0", "web")
		a, amac := s.on("web", "lan")
		b, bmac := s.on("web", "two")
		if l, ok := second.Lease(bmac); !ok || l.Addr.String() != b || !s.held(a, amac) {
			t.Errorf("%s %s and %s %s: %v, %v", a, amac, b, bmac, s.server.Leases(), second.Leases())
		}
		s.await("both leases in the container", func() bool {
			var ls []api.Lease
			s.k.JSON(&ls, "leases", "--json")
			n := 0
			for _, l := range ls {
				if l.Target == "docker:web" && l.State == "bound" {
					n++
				}
			}
			return n == 2
		})
		s.lifetime("web", "lan0")
		s.lifetime("web", "eth0")
		out := s.docker("exec", "web", "/bin/ip", "route")
		if strings.Count(out, "default") != 1 || strings.Count(out, "10.99.0.0/16") != 2 {
			t.Errorf("routes:\n%s", out)
		}
		first := "lan"
		if !strings.Contains(out, "default via "+router+" ") {
			first = "two"
		}
		s.docker("network", "disconnect", first, "web")
		if out := s.docker("exec", "web", "/bin/ip", "route"); strings.Count(out, "default") != 1 {
			t.Errorf("routes with one network left:\n%s", out)
		}
		s.docker("network", "connect", first, "web")
		if out := s.docker("exec", "web", "/bin/ip", "route"); strings.Count(out, "default") != 1 {
			t.Errorf("routes with both networks again:\n%s", out)
		}
	})
	t.Run("a metric of one's own", func(t *testing.T) {
		s.docker("run", "-d", "--name", "db", "--network", "far", "bb", "/bin/sleep", "600")
		s.moved("db")
		s.lifetime("db", "eth0")
		s.await("the route with its metric", func() bool { return strings.Contains(s.docker("exec", "db", "/bin/ip", "route"), "default") })
		out := s.docker("exec", "db", "/bin/ip", "route")
		for _, w := range []string{"default via " + router + " dev eth0  src", "metric 50"} {
			if !strings.Contains(out, w) {
				t.Errorf("lacks %q:\n%s", w, out)
			}
		}
	})
	s.docker("rm", "-f", "web", "db")
	s.clean()
	s.server.WaitEmpty(soon)
	second.WaitEmpty(soon)
}

// TestDriverIPAM has the IPAM plugin get the addresses for the driver.
func TestDriverIPAM(t *testing.T) {
	s := newPlant(t)
	s.create("lan", "--ipam-driver", s.driver, "--ipam-opt", "parent="+lab.Uplink, "--ipam-opt", "release-delay=1s", "-o", "mtu=1400")
	s.run("web")
	ip, mac := s.of("web")
	if !s.held(ip, mac) {
		t.Fatalf("server does not hold %s %s: %v", ip, mac, s.server.Leases())
	}
	if l := s.moved("web"); l.MAC != mac || !strings.HasPrefix(l.Address, ip+"/") {
		t.Errorf("lease %+v, container %s %s", l, mac, ip)
	}
	s.lifetime("web", "eth0")
	out := s.docker("exec", "web", "/bin/ip", "route") + s.docker("exec", "web", "/bin/ip", "addr", "show", "eth0")
	for _, w := range []string{"default via " + s.server.Addr.String(), "mtu 1400"} {
		if !strings.Contains(out, w) {
			t.Errorf("lacks %q:\n%s", w, out)
		}
	}
	s.docker("restart", "-t", "0", "web")
	if now, _ := s.of("web"); now != ip {
		t.Errorf("address %s after the restart, %s before", now, ip)
	}
	s.moved("web")
	out, err := s.try("run", "--rm", "--name", "db", "--network", "name=lan,driver-opt=hostname=x", "bb", "/bin/sleep", "1")
	if err == nil || !strings.Contains(out, "--driver-opt hostname has no effect with --ipam-driver mvdhcp") {
		t.Errorf("%v: %s", err, out)
	}
	s.docker("rm", "-f", "web", "db")
	s.docker("network", "rm", "lan")
	s.clean()
	s.server.WaitEmpty(soon)
}

// TestDriverComeAndGo kills keeper and engine between the engine's calls.
func TestDriverComeAndGo(t *testing.T) {
	s := newPlant(t)
	s.create("lan", "--ipam-driver", "null", "-o", "release-delay=8s")
	s.run("web", "--restart", "always", "--stop-timeout", "1")
	ip, mac := s.of("web")
	s.moved("web")
	same := func(t *testing.T, when string) {
		t.Helper()
		s.moved("web")
		if nip, nmac := s.of("web"); nip != ip || nmac != mac || !s.held(ip, mac) {
			t.Errorf("%s: %s %s, before %s %s: %v", when, nip, nmac, ip, mac, s.server.Leases())
		}
	}
	t.Run("keeper killed: it still knows the network", func(t *testing.T) {
		s.k.Kill9()
		s.k.Start()
		same(t, "keeper killed")
		s.docker("restart", "-t", "0", "web")
		same(t, "keeper killed, container restarted")
	})
	t.Run("keeper killed, store lost: the engine is asked for the network", func(t *testing.T) {
		s.docker("stop", "-t", "0", "web")
		s.freed(mac)
		s.k.Kill9()
		if err := os.Remove(filepath.Join(s.k.StateDir, "leases.db")); err != nil {
			t.Fatal(err)
		}
		s.k.Start()
		s.docker("start", "web")
		same(t, "store lost")
	})
	t.Run("engine restarted", func(t *testing.T) {
		s.engine.Term()
		s.startEngine()
		same(t, "engine restarted")
	})
	t.Run("engine killed", func(t *testing.T) {
		s.killEngine()
		s.startEngine()
		same(t, "engine killed")
		if links := s.links(); len(links) > 0 {
			t.Errorf("links left on the host: %v", links)
		}
	})
	t.Run("both killed", func(t *testing.T) {
		s.killEngine()
		s.k.Kill9()
		s.k.Start()
		s.startEngine()
		same(t, "both killed")
	})
	t.Run("the engine does not answer the keeper: a start goes on without", func(t *testing.T) {
		s.front.hang(true)
		s.run("db")
		ip, mac := s.of("db")
		if !s.held(ip, mac) {
			t.Errorf("server does not hold %s %s: %v", ip, mac, s.server.Leases())
		}
		s.lifetime("db", "eth0")
		s.front.hang(false)
		s.moved("db") // and is named after its container by then
		s.docker("rm", "-f", "db")
		s.freed(mac)
	})
	s.docker("rm", "-f", "web")
	s.freed(mac)
	s.clean()
	t.Run("network removed while no keeper runs: the next one forgets it", func(t *testing.T) {
		s.k.Kill9()
		s.docker("network", "rm", "lan")
		s.k.Start()
		s.await("the network is forgotten", func() bool {
			return strings.Contains(s.k.Process().Output(), "network was removed while no keeper ran")
		})
	})
}
