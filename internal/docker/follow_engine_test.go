// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"strconv"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// TestEngineFollow takes attached containers through their lives. The judges
// are the server's lease file, the wire and the container's kernel.
func TestEngineFollow(t *testing.T) {
	p := newPlant(t)
	p.plain("web", "--restart", "always")
	web := p.attach("web", "--dns")
	mark := p.wire.Mark()

	t.Run("restart", func(t *testing.T) {
		p.docker("restart", "web")
		p.back("web", web, mark)
		if out := p.docker("exec", "web", "/bin/cat", "/etc/resolv.conf"); !strings.Contains(out, "lab.test") {
			t.Errorf("resolv.conf:\n%s", out)
		}
	})
	t.Run("stop and start", func(t *testing.T) {
		p.docker("stop", "web")
		p.waiting("web")
		if out := p.k.MustRun("leases", "web"); !strings.Contains(out, "kept,waiting") || !strings.Contains(out, "docker:web") {
			t.Errorf("leases shows\n%s", out)
		}
		p.quiet(web, mark)
		p.docker("start", "web")
		p.back("web", web, mark)
	})
	t.Run("crash", func(t *testing.T) {
		before := p.pid("web")
		p.crash("web")
		p.await("web runs again", func() bool {
			out, err := p.try("inspect", "-f", "{{.State.Pid}}", "web")
			return err == nil && out != "0" && out != strconv.Itoa(before)
		})
		p.back("web", web, mark)
	})
	t.Run("pause", func(t *testing.T) {
		at := p.wire.Mark()
		p.docker("pause", "web")
		p.docker("unpause", "web")
		p.back("web", web, at)
	})
	t.Run("attach by hand while it waits", func(t *testing.T) {
		p.docker("stop", "web")
		p.waiting("web")
		p.front.hang(true)
		p.docker("start", "web")
		p.front.hang(false)
		if r := p.k.Run("attach", "web", "--parent", lab.Uplink, "--json"); r.Status != 0 && !strings.Contains(r.Stderr, "attached already") {
			t.Errorf("%v", r)
		}
		p.back("web", web, mark)
	})
	t.Run("attach while the engine hangs", func(t *testing.T) {
		p.front.hang(true)
		if r := p.k.Run("attach", "other", "--parent", lab.Uplink); r.Status != 1 || !strings.Contains(r.Stderr, "no answer within") {
			t.Errorf("%v", r)
		}
		p.front.hang(false)
		p.back("web", web, mark)
	})
	t.Run("rename", func(t *testing.T) {
		p.docker("rename", "web", "www")
		p.await("the new name", func() bool { l, ok := p.lease("www"); return ok && l.Identity == "web" && l.Target == "docker:www" })
		p.docker("restart", "www")
		p.back("www", web, mark)
	})
	t.Run("detach of a stopped one", func(t *testing.T) {
		p.docker("stop", "www")
		p.waiting("web")
		p.k.MustRun("detach", "www")
		p.released(web)
		p.docker("start", "www")
		p.docker("rm", "-f", "www")
	})
	t.Run("resolv.conf is put back", func(t *testing.T) {
		p.plain("db")
		before := p.docker("exec", "db", "/bin/cat", "/etc/resolv.conf")
		at := p.wire.Mark()
		db := p.attach("db", "--dns")
		p.docker("restart", "db")
		p.back("db", db, at+2) // its own DISCOVER and the OFFER
		p.k.MustRun("detach", "db")
		if after := p.docker("exec", "db", "/bin/cat", "/etc/resolv.conf"); after != before {
			t.Errorf("resolv.conf is\n%s\nit was\n%s", after, before)
		}
		p.docker("rm", "-f", "db")
		p.released(db)
	})
	t.Run("one who shares its namespace", func(t *testing.T) {
		p.plain("db")
		db := p.attach("db")
		at := p.wire.Mark()
		p.docker("run", "-d", "--name", "tool", "--network", "container:db", "--stop-signal", "KILL", "bb", "/bin/sleep", "600")
		if !p.inside("tool", db) {
			t.Fatal("tool is not in the namespace of db")
		}
		p.docker("restart", "db")
		p.back("db", db, at)
		if p.inside("tool", db) {
			t.Errorf("%s is in two namespaces", db.Address)
		}
		p.docker("rm", "-f", "tool", "db")
		p.released(db)
	})
	t.Run("rm -f", func(t *testing.T) {
		p.plain("db")
		db := p.attach("db")
		p.docker("rm", "-f", "db")
		p.released(db)
	})
	t.Run("rm of a stopped one", func(t *testing.T) {
		p.plain("db")
		db := p.attach("db")
		p.docker("stop", "db")
		p.waiting("db")
		p.docker("rm", "db")
		p.released(db)
	})
	p.server.WaitEmpty(soon)
}

// TestEngineFollowComesAndGoes takes attached containers through the ends and
// starts of engine and keeper.
func TestEngineFollowComesAndGoes(t *testing.T) {
	p := newPlant(t)
	p.plain("web", "--restart", "always")
	p.plain("db")
	web, db := p.attach("web"), p.attach("db")
	mark := p.wire.Mark()
	for _, step := range []struct {
		name string
		do   func()
		db   bool // runs on
	}{
		{"engine SIGTERM", func() { p.engine.Term(); p.startEngine() }, false},
		{"engine kill -9", func() { p.killEngine(); p.startEngine() }, false},
		{"keeper SIGTERM", func() { p.k.Restart() }, true},
		{"keeper kill -9", func() { p.k.Kill9(); p.k.Start() }, true},
		{"both, the engine first", func() { p.k.Kill9(); p.killEngine(); p.startEngine(); p.k.Start() }, false},
		{"both, the keeper first", func() { p.engine.Term(); p.k.Kill9(); p.k.Start(); p.startEngine() }, false},
		{"restart without a keeper", func() { p.k.Kill9(); p.docker("restart", "web"); p.k.Start() }, true},
		{"engine hangs at a restart", func() { p.front.hang(true); p.docker("restart", "web"); p.waiting("web"); p.front.hang(false) }, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			p.back("web", web, mark)
			if !step.db {
				p.waiting("db")
				p.quiet(db, mark)
				p.docker("start", "db")
			}
			p.back("db", db, mark)
		})
	}
	t.Run("removed without a keeper", func(t *testing.T) {
		p.k.Kill9()
		p.docker("rm", "-f", "web")
		p.killEngine()
		p.k.Start()
		p.waiting("web") // nobody has said that it was removed
		p.quiet(web, mark)
		p.startEngine()
		p.released(web)
	})
	t.Run("removed while the engine hangs", func(t *testing.T) {
		p.docker("start", "db")
		p.back("db", db, mark)
		p.front.hang(true)
		p.docker("rm", "-f", "db")
		p.waiting("db")
		p.quiet(db, mark)
		p.front.hang(false)
		p.released(db)
	})
	p.server.WaitEmpty(soon)
}

// TestEngineFollowLiveRestore: containers run on without their engine.
func TestEngineFollowLiveRestore(t *testing.T) {
	p := newPlant(t, "--live-restore")
	p.plain("web")
	web := p.attach("web")
	mark := p.wire.Mark()
	for name, end := range map[string]func(){"SIGTERM": func() { p.engine.Term() }, "kill -9": p.killEngine} {
		t.Run(name, func(t *testing.T) {
			pid := p.pid("web")
			end()
			p.k.Kill9()
			p.k.Start()
			l, ok := p.lease("web")
			if !ok || l.State != "bound" {
				t.Errorf("without an engine web's lease is %+v", l)
			}
			p.startEngine()
			p.back("web", web, mark)
			if now := p.pid("web"); now != pid {
				t.Fatalf("web's process is %d, it was %d: the engine restored nothing", now, pid)
			}
		})
	}
	t.Run("ends without its engine", func(t *testing.T) {
		pid := p.pid("web")
		p.killEngine()
		kill(t, pid)
		p.waiting("web")
		p.startEngine()
		p.quiet(web, mark)
		p.docker("start", "web")
		p.back("web", web, mark)
	})
}
