// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// plant is a site whose engine and keeper come and go, beside others.
type plant struct {
	*site
	l      *lab.Lab
	wire   *lab.Capture
	engine *lab.Process
	args   []string // of the engine
	front  *front   // where the keeper finds the engine
}

var plants atomic.Int64

// newPlant starts everything, the engine with more arguments.
func newPlant(t *testing.T, args ...string) *plant {
	t.Helper()
	return newPlantOn(t, lab.New(t), lab.ServerOptions{}, args...)
}

// newPlantOn is newPlant on a lab, with a server of its own kind.
func newPlantOn(t *testing.T, l *lab.Lab, o lab.ServerOptions, args ...string) *plant {
	t.Helper()
	t.Parallel()
	s := &site{t: t, server: l.Dnsmasq(o), h: l.Host("host"), driver: fmt.Sprintf("mvdhcp%d-%d", os.Getpid(), plants.Add(1))}
	dir, err := os.MkdirTemp("/tmp", "mvdhcp-engine")
	if err != nil {
		t.Fatal(err)
	}
	s.dir, s.socket = dir, filepath.Join(dir, "d.sock")
	t.Cleanup(func() { s.unmount(); os.RemoveAll(dir) })
	p := &plant{site: s, l: l, wire: s.h.Capture(lab.Uplink, lab.DHCPOnly), args: append(args, s.containerd()...)}
	p.front = newFront(t, filepath.Join(dir, "f.sock"), s.socket)

	plugin := "/run/docker/plugins/" + s.driver + ".sock"
	t.Cleanup(func() { os.Remove(plugin); os.Remove(plugin + ".lock") })
	s.k = l.NoKeeper(s.h)
	s.k.SetArgs("--docker", "--docker-socket", plugin)
	s.k.SetEnv("DOCKER_HOST=unix://" + p.front.path)
	s.k.Start()
	p.startEngine()
	t.Cleanup(func() {
		if !p.engine.Running() {
			p.startEngine()
		}
		out, _ := s.try("ps", "-aq")
		s.try(append([]string{"rm", "-f"}, strings.Fields(out)...)...)
		p.engine.Term()
	})
	s.image()
	return p
}

// startEngine starts the engine, and waits until it answers: without a keeper it
// tries 15 s for each network and for each endpoint first.
func (p *plant) startEngine() {
	p.t.Helper()
	p.engine = p.h.StartEngine("dockerd", p.args...)
	p.l.Eventually(3*time.Minute, "the engine answers", func() bool { _, err := p.try("version"); return err == nil })
}

// killEngine ends the engine without a word.
func (p *plant) killEngine() {
	p.t.Helper()
	p.engine.Kill9()
	os.Remove(filepath.Join(p.dir, "d.pid")) // else the next one may take another process for it
}

// plain runs a container without a network that ends at once when told to.
func (p *plant) plain(name string, args ...string) {
	p.t.Helper()
	p.docker(append(append([]string{"run", "-d", "--name", name, "--network", "none", "--stop-signal", "KILL"}, args...), "bb", "/bin/sleep", "600")...)
}

// attach attaches a container.
func (p *plant) attach(name string, args ...string) (l api.Lease) {
	p.t.Helper()
	p.k.JSON(&l, append([]string{"attach", name, "--parent", lab.Uplink}, args...)...)
	return l
}

// lease is the only lease of a query that is neither held for nobody nor being
// released; ok is false when there is none.
func (p *plant) lease(query string) (l api.Lease, ok bool) {
	p.t.Helper()
	var ls []api.Lease
	p.k.JSON(&ls, "leases")
	for _, one := range ls {
		if (one.Identity == query || one.Target == "docker:"+query) && one.State != "releasing" && (one.State != "kept" || one.Waiting) {
			if ok {
				p.t.Fatalf("two leases of %s: %+v", query, ls)
			}
			l, ok = one, true
		}
	}
	return l, ok
}

// inside reports whether the container's kernel has the lease's address.
func (p *plant) inside(name string, l api.Lease) bool {
	out, err := p.try("exec", name, "/bin/ip", "addr", "show", l.Ifname)
	return err == nil && strings.Contains(out, " "+l.Address+" ") && strings.Contains(out, l.MAC)
}

// back waits until a container has its lease again, and checks that the server
// holds it and that it was never asked for anew since mark.
func (p *plant) back(name string, was api.Lease, mark int) {
	p.t.Helper()
	p.await(was.Address+" in "+name, func() bool {
		l, ok := p.lease(was.Identity)
		return ok && l.ID == was.ID && l.State == "bound" && p.inside(name, was)
	})
	p.quiet(was, mark)
}

// quiet checks that the server holds a lease, and that nobody asked for it anew
// or gave it back since mark.
func (p *plant) quiet(was api.Lease, mark int) {
	p.t.Helper()
	if !p.held(strings.Split(was.Address, "/")[0], was.MAC) {
		p.t.Errorf("the server does not hold %s: %v", was.Address, p.server.Leases())
	}
	mac, err := net.ParseMAC(was.MAC)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, pkt := range p.wire.After(mark) {
		if pkt.Is(dhcpv4.MessageTypeDiscover, mac) || pkt.Is(dhcpv4.MessageTypeRelease, mac) {
			p.t.Errorf("on the wire: %v", pkt)
		}
	}
}

// waiting waits until a lease is kept for its container.
func (p *plant) waiting(name string) {
	p.t.Helper()
	p.await("the lease waits for "+name, func() bool {
		l, ok := p.lease(name)
		return ok && l.State == "kept" && l.Waiting
	})
}

// released waits until the server has the lease no more, and the keeper neither.
func (p *plant) released(was api.Lease) {
	p.t.Helper()
	p.await("the end of "+was.Address, func() bool {
		_, ok := p.server.Lease(was.MAC)
		_, there := p.lease(was.Identity)
		return !ok && !there
	})
}

// pid is a container's process.
func (p *plant) pid(name string) (pid int) {
	p.t.Helper()
	if _, err := fmt.Sscan(p.docker("inspect", "-f", "{{.State.Pid}}", name), &pid); err != nil || pid < 2 {
		p.t.Fatalf("%s has no process: %v", name, err)
	}
	return pid
}

// crash ends a container's process as a fault would.
func (p *plant) crash(name string) {
	p.t.Helper()
	kill(p.t, p.pid(name))
}

// front is a socket before the engine's that can be made to hang: it accepts
// and passes nothing on.
type front struct {
	path string
	to   string

	mu    sync.Mutex
	hung  bool
	conns map[net.Conn]bool
}

func newFront(t *testing.T, path, to string) *front {
	t.Helper()
	f := &front{path: path, to: to, conns: map[net.Conn]bool{}}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.cut()
		wg.Wait()
	})
	return f
}

// hang makes the socket silent, for those connected as well, or ends that.
func (f *front) hang(on bool) {
	f.mu.Lock()
	f.hung = on
	f.mu.Unlock()
	f.cut()
}

// cut ends the connections there are.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *front) serve(c net.Conn) {
	f.mu.Lock()
	f.conns[c] = true
	hung := f.hung
	f.mu.Unlock()
	defer func() {
		c.Close()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	if hung {
		io.Copy(io.Discard, c)
		return
	}
	e, err := net.DialTimeout("unix", f.to, time.Second)
	if err != nil {
		return
	}
	defer e.Close()
	go func() {
		io.Copy(e, c)
		e.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(c, e)
}

// kill ends a process.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
