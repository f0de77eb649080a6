// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"fmt"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// TestNetworkOnParentDown: a network is refused on a parent that was set down
// under waiting leases, and leaves the parent as it is.
func TestNetworkOnParentDown(t *testing.T) {
	e := newFakeEngine(t, lab.ServerOptions{})
	e.k.MustRun("attach", e.l.Container("web").Target(), "--parent", lab.Uplink)
	e.h.SetLink(lab.Uplink, false)
	e.l.Eventually(soon, "the keeper sees the parent down", func() bool {
		return strings.Contains(e.k.MustRun("leases"), "parent-down")
	})
	for method, body := range map[string]string{
		"NetworkDriver.CreateNetwork": fmt.Sprintf(`{"NetworkID":%q,"Options":{"com.docker.network.generic":{"parent":%q}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}`, network1, lab.Uplink),
		"IpamDriver.RequestPool":      fmt.Sprintf(`{"AddressSpace":"mvdhcp","Options":{"parent":%q}}`, lab.Uplink),
	} {
		_, answer, err := e.post(t.Context(), method, body)
		if said, _ := answer["Error"].(string); err != nil || !strings.Contains(said, "down") {
			t.Errorf("%s: %v, %v; want the reason", method, answer, err)
		}
		if up, _ := e.h.Link(lab.Uplink); up.Up {
			t.Fatalf("%s raised the parent", method)
		}
	}
}
