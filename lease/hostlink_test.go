// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"mvdhcp/provision"
)

// link attaches the host link of the parent.
func (r *rig) link() Record {
	r.Helper()
	r.w.mu.Lock()
	ns := r.w.hostSpace().id
	r.w.mu.Unlock()
	o := r.options("link", ns)
	o.Spec.Ifname, o.Spec.Routes = "mvhost", RoutesNone
	o.Target = Target{Kind: TargetHost, Name: HostTarget(parent)}
	rec, err := r.attachTo(o)
	if err != nil {
		r.Fatal(err)
	}
	return rec
}

// peers checks whose addresses the host link has routes to.
func (r *rig) peers(want ...Record) {
	r.Helper()
	var got []netip.Addr
	for _, rt := range r.w.kids()["host/mvhost"].cfg.Routes {
		got = append(got, rt.Dst.Addr())
	}
	var addrs []netip.Addr
	for _, rec := range want {
		addrs = append(addrs, rec.Binding.Address.Addr())
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if !slices.Equal(got, addrs) {
		r.Errorf("host link has routes to %v, want %v", got, addrs)
	}
}

// A host link's routes follow the leases on its parent, also over a keeper's end,
// and are nothing that is repaired.
func TestHostLink(t *testing.T) {
	sim(t, func(r *rig) {
		link := r.link()
		a, b := r.attach("a"), r.attach("b")
		time.Sleep(time.Second)
		r.peers(a, b)
		if _, err := r.k.Release(r.Context(), a.ID, "test"); err != nil {
			r.Fatal(err)
		}
		time.Sleep(time.Second)
		r.peers(b)
		r.halt()
		if err := r.store.Delete(b.ID); err != nil {
			r.Fatal(err)
		}
		r.start()
		time.Sleep(time.Second)
		r.peers()
		c := r.attach("c")
		r.k.Observe(provision.Event{Kind: provision.ChildChanged, NSID: hostNSID, Index: link.Child.Index})
		time.Sleep(time.Second)
		r.peers(c)
		if n := r.k.EventCounts()[EvRepaired]; n > 0 {
			r.Errorf("repaired %d times", n)
		}
		if v := r.k.Leases("link", false)[0]; v.State != Bound || !v.RenewAt.After(time.Now().Add(time.Hour)) {
			r.Errorf("%s, to be renewed at %v", v.State, v.RenewAt)
		}
	})
}

// A host link that lost its address by hand has it back, by the event that the
// kernel has of it.
func TestHostLinkRepaired(t *testing.T) {
	sim(t, func(r *rig) {
		link := r.link()
		r.settle()
		r.got()
		if err := r.w.Unconfigure(link.NS, link.Child); err != nil {
			r.Fatal(err)
		}
		r.k.Observe(provision.Event{Kind: provision.ChildChanged, NSID: hostNSID, Index: link.Child.Index})
		time.Sleep(time.Second)
		r.want(EvRepaired)
		if got, want := r.onKid("host/mvhost"), link.Binding.Address.Addr().String()+"/32"; got != want {
			r.Errorf("on the child: %q, want %s", got, want)
		}
	})
}

// A host link's route goes with an address that a server takes back, however long
// the kernel needs to take that off its child.
func TestHostLinkWithoutLost(t *testing.T) {
	sim(t, func(r *rig) {
		r.link()
		a := r.attach("a")
		r.settle()
		r.peers(a)
		r.w.unconfigureFor = time.Second
		r.server(func(s *server) {
			s.drop(a.Spec.MAC.String())
			s.size = 0
		})
		if _, err := r.k.Renew(r.Context(), a.ID); !isNAK(err) {
			r.Error(err)
		}
		r.settle()
		r.peers()
	})
}

// Routes follow while the link waits for its next repair, for which it is looked
// at once more and no sooner.
func TestHostLinkBetweenRepairs(t *testing.T) {
	sim(t, func(r *rig) {
		link := r.link()
		r.settle()
		r.got()
		down := func() {
			r.w.mu.Lock()
			k, err := r.w.kid(link.NS, link.Child)
			if err == nil {
				k.down = true
			}
			r.w.mu.Unlock()
			if err != nil {
				r.Fatal(err)
			}
			// an event that asks for a look at once, whatever was repaired before
			r.k.Observe(provision.Event{Kind: provision.ChildGone, NSID: link.Child.NSID, Index: link.Child.Index})
		}
		down()
		time.Sleep(time.Second)
		r.want(EvRepaired)
		down()
		time.Sleep(time.Second)
		a := r.attach("a")
		time.Sleep(time.Second)
		r.peers(a)
		r.w.mu.Lock()
		r.w.looks = 0
		r.w.mu.Unlock()
		time.Sleep(repairFirst)
		r.want(EvBound, EvRepaired)
		r.peers(a)
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		if r.w.looks > 2 {
			r.Errorf("looked at %d times while it waits for its repair", r.w.looks)
		}
	})
}

// A parent that comes up right after a lease on it has changed has the host link
// verified like any other lease.
func TestHostLinkVerified(t *testing.T) {
	sim(t, func(r *rig) {
		r.link()
		r.settle()
		a := r.attach("a")
		r.w.setParent(r.k, parent, false)
		time.Sleep(30 * time.Second)
		r.w.messages()
		r.k.relink(parent)
		r.w.setParent(r.k, parent, true)
		time.Sleep(10 * time.Second)
		r.wire("REQUEST packet broadcast", "REQUEST packet broadcast")
		r.peers(a)
	})
}
