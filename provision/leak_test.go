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
	if n := count(t, "/proc/self/fd"); n != fds {
		t.Errorf("%d descriptors, before %d", n, fds)
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := count(t, "/proc/self/task"); n > threads+4 { // the runtime's own
		t.Errorf("%d threads, before %d", n, threads)
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
