// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"
)

func count(t testing.TB, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	return len(entries)
}

// Nothing is left of an attach and detach, and an idle child costs nothing: no
// descriptor, no thread, no goroutine.
func TestLeaks(t *testing.T) {
	h := newHost(t)
	watch(t, h)
	const rounds, kept = 200, 20
	ns := newTestNS(t)
	cycle := func(n int) {
		c, err := h.CreateChild(context.Background(), ns, h.spec(n))
		must(t, err)
		must(t, h.Apply(ns, c, lan))
		_, err = h.HasAddress(ns, c, lan.Address)
		must(t, err)
		must(t, h.Unconfigure(ns, c))
		must(t, h.DeleteChild(ns, c))
	}
	for n := range 10 { // the runtime makes the threads it needs
		cycle(n)
	}
	must(t, h.deleting.Wait())
	fds, threads, goroutines := count(t, "/proc/self/fd"), count(t, "/proc/self/task"), runtime.NumGoroutine()
	for n := range rounds {
		cycle(n)
	}
	for n := range kept {
		name, _ := newNamed(t)
		space, err := Open("/run/netns/" + name)
		must(t, err)
		c, err := h.CreateChild(context.Background(), space, h.spec(1000+n))
		must(t, err)
		must(t, h.Apply(space, c, lan))
		space.Close()
	}
	must(t, h.deleting.Wait())
	if n := count(t, "/proc/self/fd"); n != fds {
		t.Errorf("%d descriptors, before %d", n, fds)
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := count(t, "/proc/self/task"); n > threads+4+deletesAhead { // the runtime's own
		t.Errorf("%d threads, before %d", n, threads)
	}
}

// Staying in a namespace costs one descriptor, until Close.
func TestStay(t *testing.T) {
	h := newHost(t)
	name, _ := newNamed(t)
	fds := count(t, "/proc/self/fd")
	ns, err := Open("/run/netns/" + name)
	must(t, err)
	must(t, ns.Stay())
	free, err := h.FreeName(ns, func(name string) bool { return name == "eth0" })
	must(t, err)
	if free != "eth1" {
		t.Errorf("free name %q, want eth1", free)
	}
	c, err := h.CreateChild(context.Background(), ns, h.spec(1))
	must(t, err)
	must(t, h.Apply(ns, c, lan))
	if taken, err := h.FreeName(ns, func(string) bool { return false }); err != nil || taken == c.Name {
		t.Errorf("free name %q, %v", taken, err)
	}
	if n := count(t, "/proc/self/fd"); n != fds+2 {
		t.Errorf("%d descriptors while in it, before %d", n, fds)
	}
	ns.Close()
	ns.Close()
	if n := count(t, "/proc/self/fd"); n != fds {
		t.Errorf("%d descriptors afterwards, before %d", n, fds)
	}
}

// Reading a namespace that dies meanwhile, and deleting in it, fails cleanly.
func TestNamespaceDiesMeanwhile(t *testing.T) {
	h := newHost(t)
	for n := range 20 {
		name, remove := newNamed(t)
		ns, err := Open("/run/netns/" + name)
		must(t, err)
		id := ns.ID()
		c, err := h.CreateChild(context.Background(), ns, h.spec(n))
		must(t, err)
		ns.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for id.Alive() {
				if ns, err := id.Open(); err == nil {
					_ = h.Apply(ns, c, Config{Address: lan.Address, Lifetime: time.Minute})
					ns.Close()
				}
			}
		}()
		remove()
		<-done
		must(t, h.DeleteChildNSID(c))
	}
}
