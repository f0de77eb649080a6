// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestEngineManaged takes a network through the managed plugin that `make plugin`
// builds: created and enabled without a registry, and named with its tag.
func TestEngineManaged(t *testing.T) {
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	s := l.Systemd(l.Host("host"), nil)
	e := s.Engine()
	defer e.Close()
	root, err := lab.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.Dir(), "plugin")
	mk := exec.Command("make", "-C", root, "-o", "build", "plugin", "PLUGINDIR="+dir)
	if out, err := mk.CombinedOutput(); err != nil {
		t.Fatalf("make plugin: %v\n%s", err, out)
	}
	// The binary under test, wherever it was built.
	bin, err := os.ReadFile(l.Binary())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/mvdhcp"), bin, 0o755); err != nil {
		t.Fatal(err)
	}

	const name = "mvdhcp:test"
	e.Docker("plugin", "create", name, dir)
	e.Docker("plugin", "enable", name)
	defer e.TryDocker("plugin", "disable", "-f", name)
	e.Docker("network", "create", "-d", "macvlan", "--ipam-driver", name, "--ipam-opt", "parent="+lab.Uplink, "-o", "parent="+lab.Uplink, "--ipam-opt", "release-delay=0s", "lan")
	run := func(name string) (addr, mac string) {
		t.Helper()
		e.Docker("run", "-d", "--restart", "always", "--name", name, "--network", "lan", lab.Image, "/bin/sleep", "600")
		addr, mac, _ = strings.Cut(e.Docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}} {{.NetworkSettings.Networks.lan.MacAddress}}", name), " ")
		if got, ok := server.Lease(mac); !ok || got.Addr.String() != addr {
			t.Errorf("%s has %s %s, the server %v", name, addr, mac, server.Leases())
		}
		return addr, mac
	}
	web, _ := run("web")
	run("db")
	e.Docker("exec", "db", "/bin/ping", "-c1", "-W5", web)

	// The keeper's own socket is where the engine keeps the plugin's.
	id := e.Docker("plugin", "inspect", "-f", "{{.Id}}", name)
	moved := func() {
		t.Helper()
		l.Eventually(soon, "both leases have moved in and are named", func() bool {
			var ls []api.Lease
			out, err := s.Try(l.Binary(), "--socket", "/run/docker/plugins/"+id+"/api.sock", "leases", "--json")
			if err != nil || json.Unmarshal([]byte(out), &ls) != nil {
				return false
			}
			named := 0
			for _, a := range ls {
				if a.State == "bound" && a.NetNS != "" && (a.Target == "docker:web" || a.Target == "docker:db") {
					named++
				}
			}
			return named == 2
		})
	}
	moved()

	// An engine that restarts the plugin finds its leases in the new one.
	before := server.Leases()
	e.Docker("plugin", "disable", "-f", name)
	e.Docker("plugin", "enable", name)
	moved()
	if now := server.Leases(); len(now) != len(before) || len(now) != 2 {
		t.Errorf("leases %v, before the plugin's restart %v", now, before)
	}
	// The engine ends its plugins with itself. It starts this one before its
	// networks, and the containers with them.
	s.Run("systemctl", "restart", "docker.service")
	moved()
	for _, name := range []string{"web", "db"} {
		addr, mac, _ := strings.Cut(e.Docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}} {{.NetworkSettings.Networks.lan.MacAddress}}", name), " ")
		if got, ok := server.Lease(mac); !ok || got.Addr.String() != addr {
			t.Errorf("%s has %s %s after the engine's restart, the server %v", name, addr, mac, server.Leases())
		}
	}
	server.WaitLeases(soon, "no lease of before is left", func(ls []lab.ServerLease) bool { return len(ls) == 2 })
	e.Docker("rm", "-f", "web", "db")
	server.WaitEmpty(soon)

	// The same plugin is a network driver.
	e.Docker("network", "create", "-d", name, "--ipam-driver", "null", "-o", "parent="+lab.Uplink, "-o", "release-delay=0s", "own")
	e.Docker("run", "-d", "--name", "own", "--network", "own", lab.Image, "/bin/sleep", "600")
	mac := e.Docker("exec", "own", "/bin/cat", "/sys/class/net/eth0/address")
	held, ok := server.Lease(mac)
	if out := e.Docker("exec", "own", "/bin/ip", "addr", "show", "eth0"); !ok || !strings.Contains(out, held.Addr.String()) {
		t.Errorf("the server has %v, the container of the network driver\n%s", server.Leases(), out)
	}
	e.Docker("rm", "-f", "own")
	e.Docker("network", "rm", "own")
	e.Docker("network", "rm", "lan")
	server.WaitEmpty(soon)
}
