// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/moby/client"

	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/internal/lab"
)

// soon bounds what must come to pass; it is no measure of how fast.
const soon = 30 * time.Second

// site is a host with a Docker engine and a keeper that serves its IPAM plugin
// under a name of its own.
type site struct {
	t      *testing.T
	l      *lab.Lab
	lans   *atomic.Int32 // made by vlan
	plugin string        // its socket
	h      *lab.Host
	k      *lab.Keeper
	server *lab.Server
	driver string
	dir    string
	socket string
}

func newSite(t *testing.T) *site {
	t.Helper()
	l := lab.New(t)
	s := &site{t: t, l: l, lans: new(atomic.Int32), server: l.Dnsmasq(lab.ServerOptions{}), h: l.Host("host"), driver: fmt.Sprintf("mvdhcp%d", os.Getpid())}
	// A unix socket's path is short, and containers' mounts must be gone
	// before their directory goes.
	dir, err := os.MkdirTemp("/tmp", "mvdhcp-engine")
	if err != nil {
		t.Fatal(err)
	}
	s.dir, s.socket = dir, filepath.Join(dir, "d.sock")
	t.Cleanup(func() { s.unmount(); os.RemoveAll(dir) })

	plugin := "/run/docker/plugins/" + s.driver + ".sock"
	s.plugin = plugin
	t.Cleanup(func() { os.Remove(plugin); os.Remove(plugin + ".lock") })
	t.Setenv("DOCKER_HOST", "unix://"+s.socket)
	s.k = l.Keeper(s.h, "--docker", "--docker-socket", plugin)

	engine := s.h.StartEngine("dockerd", s.containerd()...)
	t.Cleanup(func() {
		s.try("rm", "-f", "web", "db", "tool")
		engine.Term()
	})
	s.await("the engine", func() bool { _, err := s.try("version"); return err == nil })
	s.image()
	return s
}

// containerd starts the engine's containerd and returns the engine's arguments.
func (s *site) containerd() (args []string) {
	s.t.Helper()
	sock := filepath.Join(s.dir, "c.sock")
	s.h.StartEngine("containerd", "--root", s.dir+"/cr", "--state", s.dir+"/cs", "--address", sock, "--log-level", "warn")
	s.await("containerd", func() bool { _, err := os.Stat(sock); return err == nil })
	return []string{"--log-level=warn", "--bridge=none", "--iptables=false", "--ip6tables=false", "--data-root", s.dir + "/dd", "--exec-root", s.dir + "/de",
		"--pidfile", s.dir + "/d.pid", "-H", "unix://" + s.socket, "--containerd", sock}
}

// image imports the lab's image.
func (s *site) image() {
	s.t.Helper()
	image, err := lab.ImageTar()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(lab.DockerClient(), "-H", "unix://"+s.socket, "import", "-", lab.Image+":latest")
	cmd.Stdin = bytes.NewReader(image)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("docker import: %v: %s", err, out)
	}
}

// major is the engine's version up to its first dot.
func (s *site) major() (n int) {
	s.t.Helper()
	v := s.docker("version", "-f", "{{.Server.Version}}")
	if _, err := fmt.Sscan(strings.Split(v, ".")[0], &n); err != nil {
		s.t.Fatalf("engine version %q: %v", v, err)
	}
	return n
}

// docker runs the engine's client and returns what it printed.
func (s *site) docker(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *site) try(args ...string) (string, error) {
	out, err := exec.Command(lab.DockerClient(), append([]string{"-H", "unix://" + s.socket}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *site) network() {
	s.t.Helper()
	s.docker("network", "create", "-d", "macvlan", "--ipam-driver", s.driver, "--ipam-opt", "parent="+lab.Uplink, "-o", "parent="+lab.Uplink,
		"--ipam-opt", "release-delay=2s", "lan")
}

func (s *site) run(name string, args ...string) {
	s.t.Helper()
	s.docker(append(append([]string{"run", "-d", "--name", name, "--network", "lan"}, args...), "bb", "/bin/sleep", "600")...)
}

// of is a container's address and MAC, as the engine says.
func (s *site) of(name string) (addr, mac string) {
	s.t.Helper()
	f := strings.Fields(s.docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}} {{.NetworkSettings.Networks.lan.MacAddress}}", name))
	if len(f) != 2 {
		s.t.Fatalf("%s has no address", name)
	}
	return f[0], f[1]
}

// held reports whether the server holds the address for the MAC.
func (s *site) held(addr, mac string) bool {
	l, ok := s.server.Lease(mac)
	return ok && l.Addr.String() == addr
}

// moved waits until the keeper keeps the container's lease inside it.
func (s *site) moved(name string) api.Lease {
	s.t.Helper()
	var found api.Lease
	s.await("the lease of "+name+" in its container", func() bool {
		var ls []api.Lease
		s.k.JSON(&ls, "leases", "--json")
		for _, l := range ls {
			if l.Target == "docker:"+name && l.State == "bound" && l.NetNS != "" {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

func (s *site) await(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v", what, soon)
		}
	}
}

// unmount ends what the engine left mounted below the test's directory.
func (s *site) unmount() {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && strings.HasPrefix(f[1], s.dir+"/") {
			exec.Command("umount", "-l", f[1]).Run()
		}
	}
}

// TestEngine takes containers on the engine's own macvlan driver through their
// lives; the judge is the server's lease file.
func TestEngine(t *testing.T) {
	s := newSite(t)
	s.network()
	got := s.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}", "lan")
	if want := netip.PrefixFrom(s.server.Addr, 16).Masked().String() + " " + s.server.Addr.String(); got != want {
		t.Errorf("network has %s, the LAN %s", got, want)
	}
	s.run("web")
	s.run("db")
	webIP, webMAC := s.of("web")
	dbIP, dbMAC := s.of("db")
	if !s.held(webIP, webMAC) || !s.held(dbIP, dbMAC) || webIP == dbIP {
		t.Fatalf("server does not hold %s %s and %s %s: %v", webIP, webMAC, dbIP, dbMAC, s.server.Leases())
	}
	s.docker("exec", "db", "/bin/ping", "-c1", "-W5", webIP)

	t.Run("the keeper follows into the container", func(t *testing.T) {
		l := s.moved("web")
		if l.MAC != webMAC || !strings.HasPrefix(l.Address, webIP+"/") {
			t.Errorf("lease has %s %s, container %s %s", l.MAC, l.Address, webMAC, webIP)
		}
		if out := s.docker("exec", "web", "/bin/ip", "addr", "show", "eth0"); !strings.Contains(out, "dynamic") && strings.Contains(out, "valid_lft forever") {
			t.Errorf("address has no lifetime:\n%s", out)
		}
		s.moved("db")
	})
	t.Run("a kill of the keeper loses nothing", func(t *testing.T) {
		s.k.Kill9()
		s.k.Start()
		s.moved("web")
		s.moved("db")
		if !s.held(webIP, webMAC) {
			t.Error("web's lease was lost")
		}
	})
	t.Run("a restart keeps the address", func(t *testing.T) {
		s.docker("restart", "-t", "0", "web")
		s.moved("web")
		if ip, mac := s.of("web"); ip != webIP {
			t.Errorf("address %s after the restart, %s before", ip, webIP)
		} else {
			webMAC = mac
		}
	})
	t.Run("rm -f releases", func(t *testing.T) {
		s.docker("rm", "-f", "web")
		s.await("release of "+webIP, func() bool { _, ok := s.server.Lease(webMAC); return !ok })
	})
	t.Run("bad options are refused", func(t *testing.T) {
		out, err := s.try("network", "create", "-d", "macvlan", "--ipam-driver", s.driver, "--ipam-opt", "parent="+lab.Uplink, "--ipam-opt", "colour=red", "-o", "parent="+lab.Uplink, "bad")
		if err == nil || !strings.Contains(out, "colour") {
			t.Errorf("unknown option: %v: %s", err, out)
		}
	})
	t.Run("network rm after the last container", func(t *testing.T) {
		s.docker("rm", "-f", "db")
		s.docker("network", "rm", "lan")
		s.server.WaitEmpty(soon)
	})
}

// TestEngineTarget attaches a container that runs without a network.
func TestEngineTarget(t *testing.T) {
	s := newSite(t)
	s.docker("run", "-d", "--name", "tool", "--hostname", "toolbox", "--network", "none", "bb", "/bin/sleep", "600")
	s.agrees("tool")
	var l api.Lease
	s.k.JSON(&l, "attach", "tool", "--parent", lab.Uplink, "--json")
	if l.Target != "docker:tool" || l.Hostname != "toolbox" || l.Identity != "tool" {
		t.Errorf("attached %s as %s with host name %s", l.Target, l.Identity, l.Hostname)
	}
	if got, ok := s.server.Lease(l.MAC); !ok || got.Hostname != "toolbox" {
		t.Errorf("server holds %v", s.server.Leases())
	}
	if out := s.docker("exec", "tool", "/bin/ip", "addr"); !strings.Contains(out, strings.Split(l.Address, "/")[0]) {
		t.Errorf("%s is not in the container:\n%s", l.Address, out)
	}
	s.docker("rm", "-f", "tool")
	s.server.WaitEmpty(soon)
	if r := s.k.Run("attach", "tool", "--parent", lab.Uplink); r.Status != 1 || !strings.Contains(r.Stderr, "tool") {
		t.Errorf("attach of a container that is gone: %v", r)
	}
}

// agrees compares what is found of a container with what the engine's own client
// library says.
func (s *site) agrees(name string) {
	s.t.Helper()
	found, err := docker.FindContainer(s.t.Context(), "", name)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := moby.New(moby.FromEnv)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	info, err := c.ContainerInspect(s.t.Context(), name, moby.ContainerInspectOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	want := docker.Container{
		ID: info.Container.ID, Name: strings.TrimPrefix(info.Container.Name, "/"), PID: info.Container.State.Pid,
		Hostname: info.Container.Config.Hostname, HostNetwork: info.Container.HostConfig.NetworkMode.IsHost(),
	}
	if diff := cmp.Diff(want, found); diff != "" {
		s.t.Errorf("container %s (-client library +found):\n%s", name, diff)
	}
}
