// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestArticle goes the way of an article on Docker's macvlan networks, command by
// command: two VLANs on one NIC, containers on each, what reaches what, and what
// becomes of it when the parent goes down. Only the addresses come from the DHCP
// server of each VLAN.
func TestArticle(t *testing.T) {
	l := newLAN(t)
	k := newKeeper(t, "--docker")
	e := startEngine(t)
	host := names(t)

	t.Run("a network makes its sub-interface", func(t *testing.T) {
		e.docker("network create --driver macvlan --ipam-driver mvdhcp --ipam-opt parent=ens192.100 -o parent=ens192.100 macvlan100")
		e.docker("network create --driver macvlan --ipam-driver mvdhcp --ipam-opt parent=ens192.101 -o parent=ens192.101" +
			" --subnet 172.10.101.0/24 --gateway 172.10.101.1 macvlan101")
		for _, vid := range vids {
			name := fmt.Sprintf("ens192.%d", vid)
			made(t, name, vid)
			all := links(t, "")
			if all[name].MAC != all[nic].MAC {
				t.Errorf("%s has MAC %s, %s has %s", name, all[name].MAC, nic, all[nic].MAC)
			}
			if a := all[name].ipv4(); len(a) != 0 {
				t.Errorf("%s has the addresses %v, want none", name, a)
			}
			got := e.docker(fmt.Sprintf("network inspect -f {{.Driver}}_{{.IPAM.Driver}}_{{range.IPAM.Config}}{{.Subnet}}_{{.Gateway}}{{end}} macvlan%d", vid))
			want := fmt.Sprintf("macvlan_mvdhcp_%v_%v", network[vid], router(vid))
			if got != want {
				t.Errorf("the network is %s, want %s", got, want)
			}
		}
		if ls := e.docker("network ls --format {{.Name}}_{{.Driver}}"); !strings.Contains(ls, "macvlan100_macvlan") || !strings.Contains(ls, "macvlan101_macvlan") {
			t.Errorf("network ls: %s", ls)
		}
	})

	before := names(t)
	e.run(map[string]string{"c1": "macvlan100", "c2": "macvlan100", "c3": "macvlan101", "c4": "none"})
	address := map[string]string{} // without its prefix
	t.Run("a container has its lease", func(t *testing.T) {
		for name, vid := range map[string]int{"c1": 100, "c2": 100, "c3": 101} {
			addr, mac := e.of(name, fmt.Sprintf("macvlan%d", vid))
			held := l.servers[vid].holds(mac, network[vid])
			address[name] = held
			if addr != held+"/24" {
				t.Errorf("%s has %s, the server holds %s", name, addr, held)
			}
			if a, err := e.in(name, "ip", "addr show eth0"); err != nil || !strings.Contains(a, "inet "+addr) || !strings.Contains(a, "eth0@if") {
				t.Errorf("ip addr in %s: %v: %s", name, err, a)
			}
			if r, err := e.in(name, "ip", "route"); err != nil || !strings.Contains(r, fmt.Sprintf("default via %v dev eth0", router(vid))) {
				t.Errorf("ip route in %s: %v: %s", name, err, r)
			}
			if d, err := e.in(name, "ip", "-d link show eth0"); err != nil || !strings.Contains(d, "macvlan mode bridge") || !strings.Contains(d, mac) {
				t.Errorf("ip -d link in %s: %v: %s", name, err, d)
			}
		}
		if a := e.docker("exec c1 ip addr show eth0"); !strings.Contains(a, "inet "+address["c1"]+"/24") {
			t.Errorf("docker exec c1 ip addr: %s", a)
		}
		if address["c1"] == address["c2"] {
			t.Errorf("two containers have %s", address["c1"])
		}
		if after := names(t); !slices.Equal(before, after) {
			t.Errorf("the host had the links %v, and has %v", before, after)
		}
	})

	reaches := func(t *testing.T, from, to string, want bool) {
		t.Helper()
		if e.pings(from, address[to]) != want {
			t.Errorf("%s reaches %s: %v, want %v", from, to, !want, want)
		}
	}
	t.Run("within a VLAN and across", func(t *testing.T) {
		reaches(t, "c1", "c2", true)
		reaches(t, "c2", "c1", true)
		reaches(t, "c3", "c1", false) // there is no way between the routers
		(&lan{t: t}).route()
		reaches(t, "c3", "c1", true)
		reaches(t, "c1", "c3", true)
	})

	// Every lease must be in its container before its parent is tried.
	k.await("three leases in their containers", func(all []lease) bool {
		return len(all) == 3 && !slices.ContainsFunc(all, func(l lease) bool { return l.State != "bound" || l.Ifname != "eth0" })
	})
	for _, c := range []struct {
		test, ns, link string
		waits          []string // containers whose leases wait
	}{
		{"sub-interface down", "", "ens192.100", []string{"c1", "c2"}},
		{"link of the NIC lost", "switch", "trunk", []string{"c1", "c2", "c3"}},
	} {
		t.Run(c.test, func(t *testing.T) {
			set := func(state string) { batch(t, c.ns, "link set "+c.link+" "+state) }
			asked := map[int]int{}
			for _, vid := range vids {
				asked[vid] = theLAN.logs[vid].len()
			}
			set("down")
			k.await("the leases wait for the parent", func(all []lease) bool { return waiting(all) == len(c.waits) })
			if out := k.do("leases").stdout; strings.Count(out, "parent-down") != len(c.waits) {
				t.Errorf("leases prints\n%s, want parent-down %d times", out, len(c.waits))
			}
			reaches(t, "c1", "c1", true)
			reaches(t, "c1", "c2", false)
			set("up")
			k.await("the leases are verified", func(all []lease) bool { return waiting(all) == 0 })
			for _, name := range c.waits {
				vid := 100
				if name == "c3" {
					vid = 101
				}
				_, mac := e.of(name, fmt.Sprintf("macvlan%d", vid))
				theLAN.logs[vid].await(t, asked[vid], "DHCPACK(lan0) "+address[name]+" "+mac)
			}
			reaches(t, "c1", "c2", true)
			if r, err := e.in("c1", "ip", "route"); err != nil || !strings.Contains(r, "default via 172.10.100.1 dev eth0") {
				t.Errorf("the default route of c1 is not back: %v: %s", err, r)
			}
		})
	}

	t.Run("a container of another network", func(t *testing.T) {
		a := k.do("attach", "c4", "--parent", "ens192.100")
		if a.status != 0 {
			t.Fatalf("attach: status %d: %s", a.status, a.stderr)
		}
		reaches(t, "c4", "c1", true)
		if d, err := e.in("c4", "ip", "-d link show eth0"); err != nil || !strings.Contains(d, "macvlan mode bridge") {
			t.Errorf("ip -d link in c4: %v: %s", err, d)
		}
		e.docker("rm -f c4")
		k.await("the lease of c4 has ended", func(all []lease) bool { return len(all) == 3 })
	})

	t.Run("nothing is left", func(t *testing.T) {
		e.docker("rm -f c1 c2 c3")
		e.docker("network rm macvlan100 macvlan101")
		for _, vid := range vids {
			l.servers[vid].t = t
			l.servers[vid].await("empty lease file", func() bool { return l.servers[vid].count() == 0 })
			absent(t, fmt.Sprintf("ens192.%d", vid))
		}
		if after := names(t); !slices.Equal(host, after) {
			t.Errorf("the host had the links %v, and has %v", host, after)
		}
	})

	t.Run("a parent of leases and networks goes with the last of both", func(t *testing.T) {
		const create = "network create --driver macvlan --ipam-driver mvdhcp --ipam-opt parent=ens192.100 -o parent=ens192.100 shared"
		(&lan{t: t}).namespace("a")
		k.attach("a", "ens192.100")
		e.docker(create)
		k.stop(syscall.SIGKILL)
		k.start()
		k.detach("a")
		made(t, "ens192.100", 100) // the network has it
		k.attach("a", "ens192.100")
		e.docker("network rm shared")
		made(t, "ens192.100", 100) // the lease has it
		k.detach("a")
		absent(t, "ens192.100")
	})
}

// waiting counts the leases that wait for their parent.
func waiting(all []lease) (n int) {
	for _, l := range all {
		if l.ParentState != "up" {
			n++
		}
	}
	return n
}
