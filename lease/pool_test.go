// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/provision"
)

// reserve takes a lease for a pool and moves it into an interface that somebody
// else made.
func (r *rig) reserve(id string, delay time.Duration) Record {
	r.Helper()
	o := r.options(id, provision.Namespace{})
	rec, err := r.k.Reserve(r.Context(), o, Pool{ID: "pool", Delay: delay}, "", func(string) {})
	if err != nil {
		r.Fatal(err)
	}
	if rec.State != Kept || len(r.w.kids()) != 0 {
		r.Fatalf("reserved: %s, children %v", rec.State, r.w.kids())
	}
	ns := r.w.addSpace(id)
	p, err := r.w.Parent(parent)
	if err != nil {
		r.Fatal(err)
	}
	if _, err := r.w.CreateChild(r.Context(), ns, provision.ChildSpec{Parent: p, Name: "eth0", MAC: rec.Spec.MAC}); err != nil {
		r.Fatal(err)
	}
	if err := r.k.MoveIn(r.Context(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:" + id}); err != nil {
		r.Fatal(err)
	}
	r.settle()
	return r.one().Record
}

// A pool's lease is kept where it moved in, held when its child goes, and
// released when the delay is over.
func TestPoolLease(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", time.Minute)
		time.Sleep(7 * time.Hour)
		if v := r.one(); v.State != Bound || v.Renewals != 1 || r.onKid("web/eth0") != rec.Binding.Address.String() {
			r.Errorf("%s, renewed %d times, on the child %q", v.State, v.Renewals, r.onKid("web/eth0"))
		}
		r.w.messages()
		r.w.killSpace(rec.NS.Ino)
		r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
		time.Sleep(30 * time.Second)
		if v := r.one(); !v.Pool.Held() || v.State != Kept {
			r.Errorf("%s, pool %+v", v.State, v.Pool)
		}
		r.wire()
		r.halt()
		r.start() // the delay outlives a keeper
		time.Sleep(time.Minute)
		r.wire("RELEASE parent unicast")
		if vs := r.k.Leases("", false); len(vs) != 0 {
			r.Errorf("left: %+v", vs)
		}
	})
}

// A pool's lease that lost its address ends with its child, for want of
// anything to hold.
func TestPoolLeaseWithoutAddress(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", -1)
		r.server(func(s *server) {
			s.drop(rec.Spec.MAC.String())
			s.lie = func(_, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				if reply.MessageType() != dhcpv4.MessageTypeNak {
					return nil
				}
				return []*dhcpv4.DHCPv4{reply}
			}
		})
		time.Sleep(8 * time.Hour)
		if v := r.one(); v.Binding != nil {
			r.Fatalf("still bound: %+v", v.Binding)
		}
		r.w.killSpace(rec.NS.Ino)
		r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
		time.Sleep(time.Minute)
		if vs := r.k.Leases("", false); len(vs) != 0 {
			r.Errorf("left: %s %+v", vs[0].State, vs[0].Pool)
		}
	})
}
