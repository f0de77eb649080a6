// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRemade: a parent is deleted under its children, which die with it, and made
// again by hand. Every child comes back in its namespace with its name, MAC,
// address, routes and lease, and traffic goes on.
func TestRemade(t *testing.T) {
	bond := []string{
		"link add bond7 type bond mode active-backup miimon 20",
		"link set nic1 down", "link set nic1 master bond7",
		"link set bond7 up",
	}
	for _, c := range []struct {
		test, parent string
		children     int
		unmake       []string
		remake       []string
	}{
		{"VLAN", "ens192.100", 20,
			[]string{"link del ens192.100"},
			[]string{"link add link ens192 name ens192.100 type vlan id 100", "link set ens192.100 up"}},
		{"VLAN on a bond", "bond7.100", 4,
			[]string{"link del bond7"},
			append(slices.Clone(bond), "link add link bond7 name bond7.100 type vlan id 100", "link set bond7.100 up")},
	} {
		t.Run(c.test, func(t *testing.T) {
			l, k := newLAN(t), newKeeper(t)
			if c.parent == "bond7.100" {
				batch(t, "", "link add nic1 type veth peer name port1 netns switch")
				t.Cleanup(func() { batch(t, "", "link del bond7", "link del nic1") })
				batch(t, "switch", "link set port1 master br0 up")
				runBatch(t, "bridge", "switch", []string{"vlan add dev port1 vid 100"})
			}
			batch(t, "", c.remake...)
			var add, unmake []string
			for n := range c.children {
				add = append(add, fmt.Sprintf("netns add r%d", n))
				unmake = append(unmake, fmt.Sprintf("netns del r%d", n))
			}
			batch(t, "", add...)
			t.Cleanup(func() {
				if unmake != nil {
					batch(t, "", unmake...)
				}
			})
			before := map[string]lease{}
			for n := range c.children {
				ns := fmt.Sprintf("r%d", n)
				before[ns] = k.attach(ns, c.parent)
			}
			held := l.servers[100].held()
			routes := ip(t, "-n r0 route")

			// A ping ends where it has no route.
			ping := exec.Command("ip", "netns", "exec", "r0", "busybox", "sh", "-c",
				"while :; do ping -c 1 -W 1 "+router(100).String()+"; sleep 0.2; done")
			out, err := os.Create(filepath.Join(t.TempDir(), "ping"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			ping.Stdout, ping.Stderr = out, out
			if err := ping.Start(); err != nil {
				t.Fatal(err)
			}
			answers := func() []string {
				text, _ := os.ReadFile(out.Name())
				return strings.Split(string(text), " seq=")[1:]
			}
			k.await("answers to the ping", func([]lease) bool { return len(answers()) > 0 })
			defer func() { _ = ping.Process.Kill() }()
			asked := theLAN.logs[100].len()
			batch(t, "", c.unmake...)
			bare(t, "r0")
			batch(t, "", c.remake...)
			start := time.Now()
			k.await("every lease is bound again", func(all []lease) bool {
				return len(all) == c.children && waiting(all) == 0 &&
					!slices.ContainsFunc(all, func(l lease) bool { return l.State != "bound" })
			})
			t.Logf("%d children are back %.1f s after their parent", c.children, time.Since(start).Seconds())
			for _, got := range k.leases() {
				ns := strings.TrimPrefix(got.Target, "netns:")
				was := before[ns]
				if got.MAC != was.MAC || got.Address != was.Address || got.Ifname != was.Ifname {
					t.Errorf("%s has %s with %s and MAC %s, had %s with %s and %s", ns, got.Ifname, got.Address, got.MAC, was.Ifname, was.Address, was.MAC)
				}
				if own := links(t, ns)["eth0"]; own.MAC != was.MAC || !slices.Equal(own.ipv4(), []string{strings.TrimSuffix(was.Address, "/24")}) {
					t.Errorf("eth0 of %s has %v and MAC %s, want %s and %s", ns, own.ipv4(), own.MAC, was.Address, was.MAC)
				}
			}
			l.granted("r0", 100, before["r0"])
			mark := len(answers())
			k.await("answers to the ping", func([]lease) bool { return len(answers()) > mark })
			if now := ip(t, "-n r0 route"); now != routes {
				t.Errorf("the routes of r0 are\n%s, were\n%s", now, routes)
			}
			if now := l.servers[100].held(); !slices.Equal(now, held) {
				t.Errorf("the server holds %v, held %v", now, held)
			}
			if said := theLAN.logs[100].from(asked); strings.Contains(said, "DHCPDISCOVER") || strings.Contains(said, "DHCPRELEASE") {
				t.Errorf("the server got more than requests for what it had granted:\n%s", said)
			}
			_ = ping.Process.Kill() // it holds its namespace
			_ = ping.Wait()
			batch(t, "", unmake...)
			unmake = nil
			l.servers[100].await("release of every lease", func() bool {
				// Another test's client may hold one of its own.
				held := l.servers[100].macs()
				for _, was := range before {
					if slices.Contains(held, was.MAC) {
						return false
					}
				}
				return true
			})
			if p := links(t, "")[c.parent]; p.Info.Kind != "vlan" {
				t.Errorf("%s, made by hand, went with its last lease", c.parent)
			}
			if c.parent != "bond7.100" {
				ip(t, "link del "+c.parent)
			}
		})
	}
}
