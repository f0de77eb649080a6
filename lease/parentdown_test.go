// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mvdhcp/provision"
)

// An attach on a parent that leases already wait for fails at once and says why;
// one that had no carrier once is not waited for again until it was up.
func TestAttachFailsFast(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		set := func(up, carrier bool) {
			r.w.mu.Lock()
			r.w.parents[parent].Up = up
			r.w.mu.Unlock()
			r.w.setParent(r.k, parent, carrier)
		}
		ns := r.w.addSpace("new")
		attempt := func(what, why string, within time.Duration) {
			r.Helper()
			start := time.Now()
			_, err := r.attachTo(r.options("new", ns))
			if took := time.Since(start); err == nil || !strings.Contains(err.Error(), why) || took > within {
				r.Errorf("%s: after %v: %v", what, took, err)
			}
		}
		set(false, false)
		attempt("set down", "is set down, and 1 lease on it waits", 0)
		set(true, true)
		time.Sleep(time.Minute)
		set(true, false)
		attempt("carrier just lost", "has no carrier", carrierWait)
		time.Sleep(carrierWait)
		attempt("no carrier", "has no carrier", 0)
		set(true, true)
		if _, err := r.attachTo(r.options("new", ns)); err != nil {
			r.Error(err)
		}

		const other = "ens192.101"
		r.w.addParent(other)
		r.w.mu.Lock()
		r.w.parents[other].Carrier = false
		r.w.mu.Unlock()
		o := r.options("other", r.w.addSpace("other"))
		o.Spec.Parent = other
		for _, want := range []time.Duration{carrierWait, 0} {
			start := time.Now()
			if _, err := r.attachTo(o); !errors.Is(err, provision.ErrInvalid) || time.Since(start) != want {
				r.Errorf("without a lease on it, after %v: %v", time.Since(start), err)
			}
		}
		r.w.setParent(r.k, other, true)
		if _, err := r.attachTo(o); err != nil {
			r.Error(err)
		}
	})
}

// An attach whose parent goes down in the middle ends at its next packet.
func TestAttachWhenParentGoesDown(t *testing.T) {
	sim(t, func(r *rig) {
		r.server(func(s *server) { s.up = false })
		go func() {
			time.Sleep(time.Second)
			r.w.setParent(r.k, parent, false)
		}()
		start := time.Now()
		_, err := r.attachTo(r.options("web", r.w.addSpace("web")))
		if err == nil || !strings.Contains(err.Error(), "has no carrier") || time.Since(start) > 10*time.Second {
			r.Errorf("after %v: %v", time.Since(start), err)
		}
		if got := r.onKid("web/eth0"); got != "gone" {
			r.Errorf("left: %q", got)
		}
	})
}

// An attach interrupted after its REQUEST, with the parent down at the next
// start, is released when the parent is back, as long as the offer's time lasts.
func TestHalfDoneOnParentDown(t *testing.T) {
	for name, tc := range map[string]struct {
		down time.Duration
		want []string
	}{"within the lease": {10 * time.Hour, []string{"RELEASE parent unicast"}}, "past it": {13 * time.Hour, nil}} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				full := r.attach("web")
				r.settle()
				r.w.setParent(r.k, parent, false)
				r.halt()
				half := full
				half.Established, half.Binding, half.State, half.BoundAt, half.Offered = false, nil, Requesting, Moment{}, full.Binding
				if err := r.store.Put(half); err != nil {
					r.Fatal(err)
				}
				r.w.messages()
				r.start()
				time.Sleep(tc.down)
				r.wire()
				r.w.setParent(r.k, parent, true)
				time.Sleep(time.Second)
				r.wire(tc.want...)
				if vs := r.k.Leases("", false); len(vs) != 0 {
					r.Errorf("left %+v", vs)
				}
			})
		})
	}
}
