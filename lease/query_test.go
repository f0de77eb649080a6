// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"testing"
	"time"

	"mvdhcp/provision"
)

// A lease whose end is being stored is listed with those that ended, once, and
// not with those that are held.
func TestLeasesWhileOneEnds(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		looked := false
		r.store.onPut = func(p Record) {
			if p.State != Ended {
				return
			}
			looked = true
			if vs := r.k.Leases("", false); len(vs) != 0 {
				r.Errorf("held: %+v", vs)
			}
			vs := r.k.Leases("", true)
			if len(vs) != 1 || vs[0].State != Ended || !vs[0].ExpiresAt.IsZero() {
				r.Errorf("with ended ones: %+v", vs)
			}
		}
		if _, err := r.k.Release(context.Background(), rec.ID, "detached"); err != nil {
			r.Fatal(err)
		}
		if !looked {
			r.Error("the end was not stored")
		}
		if vs := r.k.Leases("", true); len(vs) != 1 {
			r.Errorf("afterwards: %+v", vs)
		}
	})
}

// Two parents may have children with one MAC, and with one address: a lease
// moves into the one on its own parent.
func TestMoveInOnItsParent(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserved("web", time.Minute, "")
		r.w.addParent("other")
		p, err := r.w.Parent("other")
		if err != nil {
			r.Fatal(err)
		}
		ns := r.w.addSpace("twin")
		c, err := r.w.CreateChild(r.Context(), ns, provision.ChildSpec{Parent: p, Name: "eth0", MAC: rec.Spec.MAC})
		if err != nil {
			r.Fatal(err)
		}
		r.w.configure(ns, c, rec.Binding.Address, rec.Binding.Router)
		err = r.k.MoveIn(r.Context(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:twin"})
		if v, _ := r.k.Lease(rec.ID); !errors.Is(err, provision.ErrGone) || v.State != Kept {
			r.Errorf("%s, %v", v.State, err)
		}
		if err := r.w.DeleteChild(ns, c); err != nil {
			r.Fatal(err)
		}
		if v := r.moveIn("web", rec); v.State != Bound {
			r.Errorf("%s on its own parent", v.State)
		}
	})
}
