// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestKilledAnywhere kills the keeper at a random moment of several attaches,
// again and again. Each time the next keeper and the server agree on what is
// leased, the children are those of the leases and no others, and what an attach
// was answered with is still there.
func TestKilledAnywhere(t *testing.T) {
	const atOnce, rounds = 5, 20
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	var cs []*lab.Container
	for range atOnce {
		cs = append(cs, s.Container("c"))
	}
	client := api.NewClient(s.k.Socket)
	attach := func(c *lab.Container) (api.Lease, error) {
		return client.Attach(context.Background(), api.AttachRequest{
			Target: c.Target(), Parent: lab.Uplink, ConflictCheck: "async", Timeout: soon,
		}, nil)
	}
	var span time.Duration
	for range 2 { // the second finds everything in memory
		start := time.Now()
		if _, err := attach(cs[0]); err != nil {
			t.Fatal(err)
		}
		span = 4 * time.Since(start) // they wait for each other
		s.k.MustRun("detach", cs[0].Target())
	}
	answered, undone := 0, 0
	for round := range rounds {
		answers := make([]api.Lease, atOnce)
		var wg sync.WaitGroup
		for i, c := range cs {
			wg.Go(func() { answers[i], _ = attach(c) })
		}
		time.Sleep(rand.N(span))
		s.k.Kill9()
		wg.Wait()
		s.k.Start()
		s.Eventually(soon, "the server has the leases of the keeper", func() bool {
			return s.agree(server) == ""
		})
		leases := map[string]api.Lease{}
		for _, l := range s.leases() {
			leases[l.Target] = l
		}
		for i, c := range cs {
			l, there := leases[c.Target()]
			if a := answers[i]; a.ID != "" {
				if answered++; !there || l.ID != a.ID || l.Address != a.Address {
					t.Errorf("round %d: %s was answered with %s, and has %+v now", round, c.Name, a.Address, l)
				}
			}
			if !there {
				undone++
				s.bare(c)
				continue
			}
			s.Eventually(soon, fmt.Sprintf("%s has its address", c.Name), func() bool {
				link, ok := c.Link("eth0")
				return ok && link.MAC.String() == l.MAC && c.Addr("eth0").Prefix.String() == l.Address
			})
			s.k.MustRun("detach", c.Target())
		}
		server.WaitEmpty(soon)
	}
	t.Logf("%d attaches: %d answered before the keeper was killed, %d undone by the next", atOnce*rounds, answered, undone)
}

// agree says what differs between the server's lease file and the leases of the
// keeper, all of which are to be bound.
func (s *site) agree(server *lab.Server) string {
	at := map[string]string{}
	for _, l := range server.Leases() {
		at[l.MAC] = l.Addr.String()
	}
	for _, l := range s.leases() {
		if l.State != "bound" {
			return l.Identity + " is " + l.State
		}
		if addr := addrOf(l).String(); at[l.MAC] != addr {
			return fmt.Sprintf("%s has %s, the server says %q", l.Identity, addr, at[l.MAC])
		}
		delete(at, l.MAC)
	}
	if len(at) > 0 {
		return fmt.Sprintf("the server has %v as well", at)
	}
	return ""
}
