// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// TestEngineCompose takes the example of the docs up, scales it and takes it
// down.
func TestEngineCompose(t *testing.T) {
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	s := l.Systemd(l.Host("host"), l.Units())
	dropIn := s.Path("/run/systemd/system/mvdhcp.service.d")
	err := os.MkdirAll(dropIn, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dropIn, "parent.conf"), []byte("[Service]\nEnvironment=MVDHCP_DOCKER_PARENT="+lab.Uplink+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "start", "mvdhcp.socket", "mvdhcp-docker.socket")
	e := s.Engine()
	defer e.Close()
	root, err := lab.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs/examples/compose.yaml")
	compose := func(args ...string) {
		t.Helper()
		s.Run("env", append([]string{"IMAGE=" + lab.Image, "PARENT=" + lab.Uplink, "RELEASE_DELAY=0s", "COMPOSE_PROJECT_NAME=example",
			l.Tool("docker-compose"), "--ansi", "never", "-f", file}, args...)...)
	}
	held := func(want int) {
		t.Helper()
		l.Eventually(soon, "the server holds the containers' addresses and no more", func() bool {
			ids := strings.Fields(e.Docker("ps", "-q"))
			for _, id := range ids {
				addr, mac, _ := strings.Cut(e.Docker("inspect", "-f", "{{.NetworkSettings.Networks.example_lan.IPAddress}} {{.NetworkSettings.Networks.example_lan.MacAddress}}", id), " ")
				if got, ok := server.Lease(mac); !ok || got.Addr.String() != addr {
					return false
				}
			}
			return len(ids) == want && len(server.Leases()) == want
		})
	}
	cycle := func() {
		t.Helper()
		compose("up", "-d")
		held(1)
		compose("up", "-d", "--scale", "web=3")
		held(3)
		compose("up", "-d", "--scale", "web=2", "-t", "0")
		held(2)
		compose("down", "-t", "0")
		held(0)
		if out := e.Docker("network", "ls", "--filter", "driver=macvlan", "-q"); out != "" {
			t.Errorf("networks left: %s", out)
		}
	}
	cycle()

	// Compose v2 takes the options below ipam and passes none on.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "      options:\n")
	if !ok {
		t.Fatalf("no options in %s", file)
	}
	for strings.HasPrefix(rest, "        ") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	file = filepath.Join(l.Dir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(before+rest), 0o644); err != nil {
		t.Fatal(err)
	}
	cycle()
}
