// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"testing"
	"time"
)

// An attach that fails after the server has confirmed a kept lease leaves it
// kept: its address is not given back.
func TestAttachFailsOnKept(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
			r.Fatal(err)
		}
		time.Sleep(time.Hour)
		r.w.messages()
		r.w.mu.Lock()
		r.w.applyErr = errors.New("no")
		r.w.mu.Unlock()
		if _, err := r.attachTo(r.options("web", r.w.addSpace("web2"))); err == nil {
			r.Fatal("attached")
		}
		r.wire("REQUEST packet broadcast")
		v := r.one()
		if v.State != Kept || v.ID != rec.ID || v.Binding.Address != rec.Binding.Address || len(r.w.kids()) != 0 {
			r.Fatalf("%s %v, children %v", v.State, v.Binding, r.w.kids())
		}
		if left := time.Until(v.ExpiresAt); left < 11*time.Hour+59*time.Minute {
			r.Errorf("expires in %v, though it was extended", left)
		}
		time.Sleep(11*time.Hour + 30*time.Minute)
		if v := r.one(); v.State != Kept {
			r.Error(v.State)
		}
	})
}
