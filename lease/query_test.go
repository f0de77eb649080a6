// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"testing"
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
