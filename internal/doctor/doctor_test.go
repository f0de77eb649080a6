// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mvdhcp/internal/doctor"
	"mvdhcp/internal/lab"
)

// examine runs the command on a host and returns its findings by check.
func examine(t *testing.T, h *lab.Host, status int, args ...string) map[string]doctor.Finding {
	t.Helper()
	args = append([]string{"doctor", "--parent", lab.Uplink, "--json", "--state-dir", t.TempDir()}, args...)
	res := h.Mvdhcp([]string{"DOCKER_HOST=unix:///nonexistent", "MVDHCP_SOCKET=/nonexistent"}, args...)
	if res.Status != status {
		t.Fatalf("%v: want exit status %d", res, status)
	}
	var r doctor.Report
	if err := json.Unmarshal([]byte(res.Stdout), &r); err != nil {
		t.Fatalf("%v: %v", res, err)
	}
	by := map[string]doctor.Finding{}
	for _, f := range r.Findings {
		by[f.Check] = f
		if f.What == "" || f.Level == doctor.Problem && f.Why == "" {
			t.Errorf("a finding that says too little: %+v", f)
		}
	}
	return by
}

func want(t *testing.T, fs map[string]doctor.Finding, check string, level doctor.Level, says string) {
	t.Helper()
	f := fs[check]
	if f.Level != level || !strings.Contains(f.What+" "+f.Why+" "+f.Fix, says) {
		t.Errorf("%s: %+v; want %s, and %q in it", check, f, level, says)
	}
}

// TestHealthy: nothing is found on a LAN in order, and nothing is left behind.
func TestHealthy(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	server := l.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	before := len(h.Links())
	fs := examine(t, h, 0)
	want(t, fs, "parent", doctor.OK, "up, with carrier")
	want(t, fs, "macvlan", doctor.OK, "")
	want(t, fs, "children", doctor.OK, "0 children")
	want(t, fs, "dhcp", doctor.OK, server.Addr.String())
	want(t, fs, "state", doctor.OK, "no store yet")
	want(t, fs, "keeper", doctor.Note, "no keeper runs")
	want(t, fs, "docker", doctor.Warning, "")
	if leases := server.Leases(); len(leases) > 0 || len(h.Links()) != before {
		t.Errorf("left behind: leases %v, links %v", leases, h.Links())
	}
	k := l.Keeper(h)
	k.MustRun("attach", l.Container("a").Target(), "--parent", lab.Uplink)
	if f := examine(t, h, 0, "--socket", k.Socket)["keeper"]; f.Level != doctor.OK || !strings.HasSuffix(f.What, ", 1 lease") {
		t.Errorf("with one lease: %+v", f)
	}
	k.MustRun("attach", l.Container("b").Target(), "--parent", lab.Uplink)
	want(t, examine(t, h, 0), "children", doctor.OK, "2 children")
}

// TestSlowServer: a server that pings an address before it offers it is heard, by
// doctor and by probe.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	server := l.Dnsmasq(lab.ServerOptions{Lease: time.Hour, Ping: true})
	want(t, examine(t, h, 0), "dhcp", doctor.OK, server.Addr.String())
	if res := l.Keeper(h).Run("probe", "--parent", lab.Uplink); res.Status != 0 || !strings.Contains(res.Stdout, server.Addr.String()) {
		t.Errorf("%v", res)
	}
}

// TestNobody: no server, one that is kept from the children, one on the host.
func TestNobody(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	want(t, examine(t, h, 1, "--window", "1s"), "dhcp", doctor.Problem, "no DHCP server answers")

	var c net.PacketConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", ":67")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, h, 1, "--window", "1s"), "dhcp-on-host", doctor.Problem, "keeps a parent apart")
	k := l.Keeper(h)
	res := k.Run("attach", l.Container("early").Target(), "--parent", lab.Uplink, "--timeout", "1s")
	if res.Status != 3 || !strings.Contains(res.Stderr, "serves DHCP on this host") {
		t.Errorf("%v: want exit status 3, and the server on the host named", res)
	}
	c.Close()

	up, _ := h.Link(lab.Uplink)
	l.Dnsmasq(lab.ServerOptions{Lease: time.Hour, Extra: []string{"--dhcp-host=" + up.MAC.String(), "--dhcp-ignore=tag:!known"}})
	want(t, examine(t, h, 1, "--window", "1s"), "snooping", doctor.Problem, "forged transmits")
	res = k.Run("attach", l.Container("late").Target(), "--parent", lab.Uplink, "--timeout", "1s")
	if res.Status != 3 || !strings.Contains(res.Stderr, "but not a child's") || strings.Count(res.Stderr, "\n") != 1 {
		t.Errorf("%v: want exit status 3, and a line that names the cause", res)
	}
	res = k.Run("attach", l.Container("hasty").Target(), "--parent", lab.Uplink, "--timeout", "50ms")
	if res.Status != 3 || !strings.Contains(res.Stderr, "longer --timeout") {
		t.Errorf("%v: want exit status 3, and no verdict after so short a time", res)
	}
}

// TestParent: what can't be a parent is said, and nothing is asked on it.
func TestParent(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	h.SetCarrier(lab.Uplink, false)
	fs := examine(t, h, 1)
	want(t, fs, "parent", doctor.Problem, "no carrier")
	if f, ok := fs["dhcp"]; ok {
		t.Errorf("asked on a parent that is down: %+v", f)
	}
	want(t, examine(t, h, 1, "--parent", "nosuch"), "parent", doctor.Problem, "no such interface")
	want(t, examine(t, h, 1, "--parent", "lo"), "parent", doctor.Problem, "loopback")
	for _, bad := range [][]string{{"doctor"}, {"doctor", "--parent", "a/b"}, {"doctor", "--parent", "up0.4095"}, {"doctor", "--parent", "up0", "web"}} {
		if res := h.Mvdhcp(nil, bad...); res.Status != 2 {
			t.Errorf("%v: want exit status 2", res)
		}
	}
}

// TestRogue: two servers that differ are both named.
func TestRogue(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	l.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	rogue := l.Dnsmasq(lab.ServerOptions{Name: "rogue", Addr: l.LAN("lan").Subnet.Addr().Next().Next(), Lease: time.Hour, Router: netip.MustParseAddr("10.80.77.77")})
	fs := examine(t, h, 0)
	want(t, fs, "rogue-server", doctor.Warning, rogue.Addr.String())
}

// TestSurroundings: the state directory and the engine.
func TestSurroundings(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	l.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, h, 1, "--state-dir", filepath.Join(file, "below")), "state", doctor.Problem, "--state-dir")
	want(t, examine(t, h, 0, "--state-dir", "/dev/shm/mvdhcp-test"), "state", doctor.Warning, "in memory")

	hung := filepath.Join(t.TempDir(), "hung.sock") // takes calls and never answers
	silent, err := net.Listen("unix", hung)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	want(t, examine(t, h, 1, "--socket", hung), "keeper", doctor.Problem, "not answered within 5s")

	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"Version":"20.10.24","ApiVersion":"1.41"}`)) //nolint:errcheck // the client sees it
	})}
	defer engine.Close()
	go engine.Serve(listener) //nolint:errcheck // ends with Close
	res := h.Mvdhcp([]string{"DOCKER_HOST=unix://" + socket, "MVDHCP_SOCKET=/nonexistent"}, "doctor", "--parent", lab.Uplink)
	if res.Status != 0 || !strings.Contains(res.Stdout, "note     docker        Docker engine 20.10.24") || !strings.Contains(res.Stdout, "fix: give --subnet") {
		t.Errorf("%v: want the engine's version, and --subnet", res)
	}
}
