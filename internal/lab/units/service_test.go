// SPDX-License-Identifier: Apache-2.0

package units_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// soon bounds what must come to pass; it is no measure of how fast.
const soon = 30 * time.Second

const service = "mvdhcp.service"

// site is a host with a systemd that has the units.
type site struct {
	*lab.Lab
	*lab.Systemd
	t      *testing.T
	server *lab.Server
}

func newSite(t *testing.T, change ...string) *site {
	t.Helper()
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	return &site{l, l.Systemd(l.Host("host"), l.Units(change...)), t, server}
}

// mvdhcp runs a command where the unit's keeper is.
func (s *site) mvdhcp(args ...string) string {
	s.t.Helper()
	return s.Run(s.Binary(), args...)
}

func (s *site) attach(target string, args ...string) (a api.Lease) {
	s.t.Helper()
	out := s.mvdhcp(append([]string{"attach", target, "--parent", lab.Uplink, "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		s.t.Fatalf("attach %s prints %q: %v", target, out, err)
	}
	return a
}

// call asks the plugin as the engine does.
func (s *site) call(ctx context.Context, method string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Path("/run/docker/plugins/mvdhcp.sock"))
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, nil)
	if err != nil {
		return "", err
	}
	res, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var v struct{ Implements []string }
	err = json.NewDecoder(res.Body).Decode(&v)
	return strings.Join(v.Implements, " "), err
}

// status is a field of the keeper's /proc/PID/status.
func (s *site) status(field string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.Path("/proc/" + s.Property(service, "MainPID") + "/status"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestRealService runs a keeper by the unit, with its capabilities, filters and
// read-only files, and has it do all that it does to targets.
func TestRealService(t *testing.T) {
	s := newSite(t)
	s.Run("systemctl", "start", service) // returns once the keeper says it is ready
	s.mvdhcp("status")

	caps := 0
	for _, c := range []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_BROADCAST, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE} {
		caps |= 1 << c
	}
	for field, want := range map[string]string{"CapBnd": fmt.Sprintf("%016x", caps), "CapEff": fmt.Sprintf("%016x", caps), "NoNewPrivs": "1", "Seccomp": "2"} {
		if got := s.status(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	mounts, err := os.ReadFile(s.Path("/proc/" + s.Property(service, "MainPID") + "/mounts"))
	if err != nil || !strings.Contains(string(mounts), " /run/mvdhcp ") {
		t.Errorf("mounts of the keeper: %v\n%s", err, mounts)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch f[1] {
		case "/", "/usr", "/etc", "/run", "/var/lib", "/proc/sys", "/sys":
			if !strings.HasPrefix(f[3]+",", "ro,") {
				t.Errorf("%s is writable for the keeper: %s", f[1], line)
			}
		}
	}

	// A named namespace that is made after the keeper has started.
	named := s.Container("named")
	const before = "nameserver 192.0.2.1\n"
	s.Run("/bin/sh", "-c", fmt.Sprintf("mkdir /etc/netns/%s && echo %s >/etc/netns/%[1]s/resolv.conf", named.Name, strings.TrimSpace(before)))
	s.attach(named.Target(), "--dns")
	if got := s.Run("cat", "/etc/netns/"+named.Name+"/resolv.conf"); !strings.Contains(got, "10.80.0.53") {
		t.Errorf("%s: resolv.conf is %q", named.Name, got)
	}

	// A process of another user, whose files are that user's alone.
	root := s.userRoot(before)
	p := s.Start("/bin/sh", "-c", "echo pid $$; exec unshare --net --mount -- chroot --userspec=1000:1000 "+root+" /bin/busybox sleep 1000000")
	p.AwaitOutput(soon, "pid ")
	pid := strings.Fields(p.Output())[1]
	var a api.Lease
	s.Eventually(soon, "the process has a namespace", func() bool {
		own, err1 := os.Readlink(s.Path("/proc/" + pid + "/ns/net"))
		host, err2 := os.Readlink(s.Path("/proc/1/ns/net"))
		exe, err3 := os.Readlink(s.Path("/proc/" + pid + "/exe"))
		return err1 == nil && err2 == nil && err3 == nil && own != host && strings.HasSuffix(exe, "busybox")
	})
	a = s.attach("pid:"+pid, "--dns", "--hostname", "other-user")
	if got, ok := s.server.Lease(a.MAC); !ok || got.Hostname != "other-user" {
		t.Errorf("the server has %+v of the process's lease", got)
	}
	resolv := filepath.Join(root, "etc/resolv.conf")
	if b, err := os.ReadFile(resolv); err != nil || !strings.Contains(string(b), "10.80.0.53") {
		t.Errorf("resolv.conf of the process: %q, %v", b, err)
	}
	s.mvdhcp("renew", named.Target()) // by UDP from port 68

	// A child in the host's own namespace.
	s.mvdhcp("host-link", "--parent", lab.Uplink)
	s.mvdhcp("host-link", "--parent", lab.Uplink, "--remove")
	s.Eventually(soon, "the server has two leases", func() bool { return len(s.server.Leases()) == 2 })

	// A kill ends nothing; the next keeper is there by itself.
	s.Run("systemctl", "kill", "-s", "KILL", "--kill-who=main", service)
	if out := s.mvdhcp("leases"); strings.Count(out, "bound") != 2 {
		t.Errorf("after the kill:\n%s", out)
	}
	if n := s.Property(service, "NRestarts"); n != "1" {
		t.Errorf("%s restarts, want 1", n)
	}

	s.mvdhcp("detach", "pid:"+pid)
	if b, err := os.ReadFile(resolv); err != nil || string(b) != before {
		t.Errorf("resolv.conf of the process after detach: %q, %v", b, err)
	}
	// A namespace that goes while the keeper sees its name by a mount of its own.
	named.Delete()
	s.server.WaitEmpty(soon)
	s.Run("systemctl", "stop", service)
	if got := s.Property(service, "Result"); got != "success" {
		t.Errorf("after stop the result is %s", got)
	}
}

// userRoot is a root directory whose /etc is user 1000's alone.
func (s *site) userRoot(resolv string) string {
	s.t.Helper()
	root := filepath.Join(s.Dir(), "userroot")
	busybox, err := os.ReadFile(s.Tool("busybox"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.MkdirAll(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755),
		os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte(resolv), 0o600),
		os.Chown(filepath.Join(root, "etc/resolv.conf"), 1000, 1000),
		os.Chown(filepath.Join(root, "etc"), 1000, 1000), os.Chmod(filepath.Join(root, "etc"), 0o700),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return root
}

// TestRealSockets asks while no keeper runs: the first question starts one, and
// those that come while it is away wait for it.
func TestRealSockets(t *testing.T) {
	s := newSite(t)
	s.Run("systemctl", "start", "mvdhcp.socket", "mvdhcp-docker.socket")
	ask := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		if got, err := s.call(ctx, "Plugin.Activate"); err != nil || !strings.Contains(got, "IpamDriver") {
			t.Errorf("%s: the plugin answers %q, %v", what, got, err)
		}
	}
	if state := s.Property(service, "ActiveState"); state != "inactive" {
		t.Fatalf("the keeper is %s before anybody asked", state)
	}
	ask("first")
	s.mvdhcp("status")
	s.Run("systemctl", "stop", service)
	ask("stopped")
	s.Run("systemctl", "kill", "-s", "KILL", "--kill-who=main", service)
	ask("killed")
	s.Run("systemctl", "stop", service)
	if out := s.mvdhcp("leases"); strings.Contains(out, "not reachable") {
		t.Errorf("leases: %s", out)
	}
}

// TestRealWatchdog stops a keeper in its tracks: systemd replaces it.
func TestRealWatchdog(t *testing.T) {
	s := newSite(t, "WatchdogSec=2min", "WatchdogSec=2s")
	s.Run("systemctl", "start", service)
	s.Run("systemctl", "kill", "-s", "STOP", "--kill-who=main", service)
	s.Eventually(soon, "another keeper", func() bool { return s.Property(service, "NRestarts") == "1" })
	s.mvdhcp("status")
}
