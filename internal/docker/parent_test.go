// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// TestEngineParent deletes the parent under a running container and makes it
// anew: the container gets its interface back as it was, and ends as any other.
func TestEngineParent(t *testing.T) {
	s := newSite(t)
	s.network()
	s.run("web")
	ip, mac := s.of("web")
	l := s.moved("web")
	s.h.DeleteLink(lab.Uplink)
	s.await("the interface is gone", func() bool {
		_, err := s.try("exec", "web", "/bin/ip", "addr", "show", "eth0")
		return err != nil
	})
	s.h.Plug(lab.Uplink, s.server.Options.LAN)
	s.await("the interface is back", func() bool {
		out, err := s.try("exec", "web", "/bin/ip", "addr", "show", "eth0")
		return err == nil && strings.Contains(out, ip+"/") && strings.Contains(out, mac)
	})
	s.await("the router answers", func() bool {
		_, err := s.try("exec", "web", "/bin/ping", "-c1", "-W2", s.server.Addr.String())
		return err == nil
	})
	if got := s.moved("web"); got.ID != l.ID || got.Address != l.Address || !s.held(ip, mac) {
		t.Errorf("lease %+v, was %+v", got, l)
	}
	s.docker("restart", "-t", "0", "web")
	s.moved("web")
	if again, _ := s.of("web"); again != ip {
		t.Errorf("address %s after a restart, %s before", again, ip)
	}
	s.docker("rm", "-f", "web")
	s.docker("network", "rm", "lan")
	s.server.WaitEmpty(soon)
	if got := s.h.Links(); len(got) != 1 {
		t.Errorf("links left on the host: %+v", got)
	}
}
