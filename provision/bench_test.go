// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"slices"
	"testing"
	"time"
)

// The steps of an attach with 100 children on the parent. "bare" is the floor:
// the one request that creates the link and brings it up.
func BenchmarkAttach(b *testing.B) {
	h := newHost(b)
	for n := range 100 {
		h.child(b, 100+n)
	}
	spaces := make([]*NS, 50)
	for i := range spaces {
		spaces[i] = newTestNS(b)
	}
	var child Child
	ctx := context.Background()
	steps := []struct {
		name string
		do   func(ns *NS) error
	}{
		{"bare", func(ns *NS) error { return h.createOnce(ns, h.spec(1), "eth0") }},
		{"create", func(ns *NS) (err error) { child, err = h.CreateChild(ctx, ns, h.spec(1)); return err }},
		{"apply", func(ns *NS) error { return h.Apply(ns, child, lan) }},
		{"renew", func(ns *NS) error { return h.Apply(ns, child, lan) }},
		{"mode", func(ns *NS) error { return h.SetMode(ns, child, Private) }},
		{"hosthas", func(ns *NS) error { _, _, err := h.HostHas(addr("10.9.0.99")); return err }},
		{"find", func(ns *NS) error { _, err := h.FindChild(ns, child); return err }},
		{"delete", func(ns *NS) error { return h.DeleteChild(ns, child) }},
	}
	took := make([][]time.Duration, len(steps))
	round := 0
	for b.Loop() {
		ns := spaces[round%len(spaces)]
		round++
		for i, s := range steps {
			start := time.Now()
			must(b, s.do(ns))
			took[i] = append(took[i], time.Since(start))
			if s.name == "bare" {
				must(b, inNS(ns, func(c *conn) error {
					l, err := c.linkByName(own, "eth0")
					must(b, err)
					return c.deleteLink(own, l.index)
				}))
			}
		}
	}
	for i, s := range steps {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Nanoseconds())/1e3, s.name+"-µs")
	}
}

// Two ways to ask for a link in another namespace: by its id from the host's
// socket, and by a socket of its own. The second costs one dial more, but an
// alias, addresses and routes can be set by it alone.
func BenchmarkReadLink(b *testing.B) {
	h := newHost(b)
	ns, c := h.child(b, 1)
	b.Run("nsid", func(b *testing.B) {
		for b.Loop() {
			must(b, h.onHost(func(conn *conn) error { _, err := conn.linkByName(c.NSID, "eth0"); return err }))
		}
	})
	b.Run("socket", func(b *testing.B) {
		for b.Loop() {
			must(b, inNS(ns, func(conn *conn) error { _, err := conn.linkByName(own, "eth0"); return err }))
		}
	})
	b.Run("dial", func(b *testing.B) {
		for b.Loop() {
			must(b, inNS(ns, func(conn *conn) error { return nil }))
		}
	})
	nh := handle(b, ns)
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			_, err := nh.LinkByIndex(c.Index)
			must(b, err)
		}
	})
}
