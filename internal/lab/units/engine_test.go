// SPDX-License-Identifier: Apache-2.0

package units_test

import (
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// TestRealEngine starts an engine beside the unit, under the default paths of
// both: it finds the plugin by its socket, its containers get leases, and the
// keeper takes them over in their namespaces.
func TestRealEngine(t *testing.T) {
	s := newSite(t)
	s.Run("systemctl", "start", "mvdhcp.socket", "mvdhcp-docker.socket")
	e := s.Engine()
	defer e.Close()
	e.Docker("network", "create", "-d", "macvlan", "--ipam-driver", "mvdhcp", "--ipam-opt", "parent="+lab.Uplink, "-o", "parent="+lab.Uplink, "--ipam-opt", "release-delay=0s", "lan")
	e.Docker("run", "-d", "--name", "web", "--network", "lan", lab.Image, "/bin/sleep", "600")
	mac := e.Docker("inspect", "-f", "{{.NetworkSettings.Networks.lan.MacAddress}}", "web")
	if _, ok := s.server.Lease(mac); !ok {
		t.Errorf("the server has no lease of %s: %v", mac, s.server.Leases())
	}
	s.Eventually(soon, "the lease moves in", func() bool {
		out := s.mvdhcp("leases")
		return strings.Contains(out, "docker:web") && strings.Contains(out, "bound")
	})
	e.Docker("run", "-d", "--name", "tool", "--network", "none", lab.Image, "/bin/sleep", "600")
	s.attach("tool", "--dns")
	if got := e.Docker("exec", "tool", "/bin/cat", "/etc/resolv.conf"); !strings.Contains(got, "10.80.0.53") {
		t.Errorf("resolv.conf of tool is %q", got)
	}
	s.Run("systemctl", "kill", "-s", "KILL", "--kill-who=main", service)
	e.Docker("rm", "-f", "web", "tool") // waits for the next keeper
	e.Docker("network", "rm", "lan")
	s.server.WaitEmpty(soon)
}
