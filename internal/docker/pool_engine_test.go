// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"mvdhcp/internal/api"
)

// networked runs a container on the network lan that ends at once when told to.
func (p *plant) networked(name string, args ...string) {
	p.t.Helper()
	p.run(name, append([]string{"--stop-signal", "KILL"}, args...)...)
}

// exact waits until the server holds the leases of these running containers and
// no other, each on the address that the kernel has in the container, and
// returns them.
func (p *plant) exact(names ...string) map[string]api.Lease {
	p.t.Helper()
	var got map[string]api.Lease
	var why string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("at last: %s\n%s", why, p.k.MustRun("leases"))
		}
	}()
	p.await("exactly the leases of "+strings.Join(names, ", "), func() bool {
		got = map[string]api.Lease{}
		var held, have []netip.Addr
		for _, l := range p.server.Leases() {
			held = append(held, l.Addr)
		}
		for _, name := range names {
			l, ok := p.lease(name)
			if !ok || l.State != "bound" || l.Target != "docker:"+name || !p.inside(name, l) {
				why = name + " has no lease in it"
				return false
			}
			got[name] = l
			have = append(have, netip.MustParsePrefix(l.Address).Addr())
		}
		slices.SortFunc(have, netip.Addr.Compare)
		why = "the server has other leases"
		return slices.Equal(held, have)
	})
	return got
}

// TestEnginePoolComesAndGoes ends and starts engine and keeper under containers
// of an IPAM network.
func TestEnginePoolComesAndGoes(t *testing.T) {
	p := newPlant(t)
	p.network()
	p.networked("web", "--restart", "always")
	p.networked("db")
	was := p.exact("web", "db")

	t.Run("keeper", func(t *testing.T) {
		mark := p.wire.Mark()
		p.k.Restart()
		p.k.Kill9()
		p.k.Start()
		if now := p.exact("web", "db"); now["web"].ID != was["web"].ID || now["db"].ID != was["db"].ID {
			t.Errorf("leases %+v, before %+v", now, was)
		}
		p.quiet(was["web"], mark)
		p.quiet(was["db"], mark)
	})
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"engine SIGTERM", func() { p.engine.Term(); p.startEngine() }},
		{"engine kill -9", func() { p.killEngine(); p.startEngine() }},
		{"both, the keeper first", func() { p.killEngine(); p.k.Kill9(); p.k.Start(); p.startEngine() }},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			p.exact("web") // the engine starts no other
			p.docker("start", "db")
			p.exact("web", "db")
		})
	}
	t.Run("engine hangs", func(t *testing.T) {
		p.front.hang(true)
		p.docker("restart", "web")
		p.networked("new")
		p.docker("rm", "-f", "db")
		p.front.hang(false)
		p.exact("web", "new")
	})
	t.Run("rename", func(t *testing.T) {
		mark := p.wire.Mark()
		p.docker("rename", "web", "www")
		p.exact("www", "new")
		p.docker("rename", "www", "web")
		p.quiet(p.exact("web", "new")["web"], mark)
	})
	t.Run("disconnect and connect", func(t *testing.T) {
		p.docker("network", "disconnect", "lan", "new")
		p.exact("web")
		p.docker("network", "connect", "lan", "new")
		p.exact("web", "new")
	})
	t.Run("engine starts without a keeper", func(t *testing.T) {
		p.engine.Term()
		p.k.Kill9()
		p.startEngine()
		p.k.Start()
		p.docker("start", "web", "new")
		p.exact("web", "new")
	})
	t.Run("stop without a keeper", func(t *testing.T) {
		p.k.Kill9()
		p.docker("stop", "new") // the engine gives up on the plugin after a while
		p.k.Start()
		p.exact("web")
	})
	p.docker("rm", "-f", "web")
	p.server.WaitEmpty(soon)
}

// TestEnginePoolLiveRestore: an engine that comes back finds its containers and
// their leases as they were.
func TestEnginePoolLiveRestore(t *testing.T) {
	p := newPlant(t, "--live-restore")
	p.network()
	p.networked("web")
	was := p.exact("web")["web"]
	mark := p.wire.Mark()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"engine SIGTERM", func() { p.engine.Term(); p.startEngine() }},
		{"engine kill -9", func() { p.killEngine(); p.startEngine() }},
		{"both, the keeper first", func() { p.killEngine(); p.k.Kill9(); p.k.Start(); p.startEngine() }},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			if now := p.exact("web")["web"]; now.ID != was.ID || now.Address != was.Address {
				t.Errorf("lease %+v, before %+v", now, was)
			}
			p.quiet(was, mark)
		})
	}
	t.Run("ends without its engine", func(t *testing.T) {
		pid := p.pid("web")
		p.killEngine()
		kill(t, pid)
		p.server.WaitEmpty(soon)
		p.startEngine()
		p.docker("start", "web")
		p.exact("web")
	})
	t.Run("network removed without a keeper", func(t *testing.T) {
		p.k.Kill9()
		p.docker("rm", "-f", "web")
		p.docker("network", "rm", "lan")
		p.k.Start()
		p.server.WaitEmpty(soon)
		var ls []api.Lease
		p.k.JSON(&ls, "leases")
		if len(ls) > 0 {
			t.Errorf("left: %+v", ls)
		}
		p.network()
		p.networked("web")
		p.exact("web")
	})
}
