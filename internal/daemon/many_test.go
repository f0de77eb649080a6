// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

func quiet(string) {}

// newHoardingSite is a site whose keeper's garbage collector closes no forgotten
// descriptor.
func newHoardingSite(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.k.SetEnv("GOGC=off")
	s.k.Restart()
	return s
}

// idle waits until the keeper has nothing under way and no more descriptors than
// want, or any number when want is 0. It returns descriptors and threads.
func (s *site) idle(want int) (descriptors, threads int) {
	s.t.Helper()
	last := -1
	s.Eventually(2*soon, fmt.Sprintf("keeper at rest with %d descriptors", want), func() bool {
		before := last
		last = len(s.k.Process().Descriptors())
		var st api.Status
		s.k.JSON(&st, "status")
		return st.Jobs == 0 && last == before && (want == 0 || last <= want)
	})
	return last, s.k.Process().Threads()
}

// TestFifty attaches fifty namespaces at once and leaves them idle.
func TestFifty(t *testing.T) {
	const n = 50
	s := newHoardingSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	client := api.NewClient(s.k.Socket)
	// What the first attach makes once and for all is no cost of a lease.
	first := s.Container("first")
	s.attach(first)
	s.k.MustRun("detach", first.Target())
	descriptors, _ := s.idle(0)
	cs := make([]*lab.Container, n)
	for i := range cs {
		cs[i] = s.Container("c")
	}
	got := make([]api.Lease, n)
	var all sync.WaitGroup
	for i, c := range cs {
		all.Go(func() {
			var err error
			if got[i], err = client.Attach(t.Context(), api.AttachRequest{Target: c.Target(), Parent: lab.Uplink}, quiet); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	seen := map[netip.Addr]bool{}
	for i, l := range got {
		a := addr(t, l)
		if seen[a] {
			t.Errorf("%v is leased twice", a)
		}
		seen[a] = true
		if entry, ok := server.Lease(l.MAC); !ok || entry.Addr != a || cs[i].Addr("eth0").Prefix.Addr() != a {
			t.Errorf("%s: lease %v, server %v, kernel %v", l.Identity, a, entry.Addr, cs[i].Addrs("eth0"))
		}
	}
	if ls := server.Leases(); len(ls) != n {
		t.Errorf("%d leases at the server, want %d", len(ls), n)
	}
	s.idle(descriptors + 1) // the parent's ARP listener
	for _, c := range cs {
		all.Go(func() {
			if _, err := client.Detach(t.Context(), api.DetachRequest{Target: c.Target()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	server.WaitEmpty(soon)
	for _, c := range cs {
		s.bare(c)
	}
	s.idle(descriptors)
}

// TestCycles attaches and detaches fifty times: the keeper holds no more than
// before.
func TestCycles(t *testing.T) {
	s := newHoardingSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	client := api.NewClient(s.k.Socket)
	c := s.Container("c")
	cycle := func() {
		if _, err := client.Attach(t.Context(), api.AttachRequest{Target: c.Target(), Parent: lab.Uplink}, quiet); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Detach(t.Context(), api.DetachRequest{Target: c.Target()}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		cycle()
	}
	descriptors, threads := s.idle(0)
	for range 50 {
		cycle()
	}
	_, after := s.idle(descriptors)
	// The runtime keeps threads for later; a leak is one a cycle.
	if after > threads+10 {
		t.Errorf("%d threads, %d before", after, threads)
	}
	var st api.Status
	s.k.JSON(&st, "status")
	if st.Goroutines > 60 {
		t.Errorf("%d goroutines at rest", st.Goroutines)
	}
	server.WaitEmpty(soon)
}
