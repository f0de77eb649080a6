// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/provision"
)

// reserve takes a lease for a pool and moves it into an interface that somebody
// else made.
func (r *rig) reserve(id string, delay time.Duration) Record {
	r.Helper()
	return r.moveIn(id, r.reserved(id, delay, ""))
}

// reserved takes a lease for a pool, going on from a held one if that is named.
func (r *rig) reserved(id string, delay time.Duration, held string) Record {
	r.Helper()
	o := r.options(id, provision.Namespace{})
	if held != "" {
		o.ClientID = "another"
	}
	rec, err := r.k.Reserve(r.Context(), o, Pool{ID: "pool", Delay: delay}, held, func(string) {})
	if err != nil {
		r.Fatal(err)
	}
	if rec.State != Kept || len(r.w.kids()) != 0 {
		r.Fatalf("reserved: %s, children %v", rec.State, r.w.kids())
	}
	return rec
}

// moveIn makes the interface as its owner does, and moves the lease in.
func (r *rig) moveIn(id string, rec Record) Record {
	r.Helper()
	ns := r.w.addSpace(id)
	p, err := r.w.Parent(parent)
	if err != nil {
		r.Fatal(err)
	}
	c, err := r.w.CreateChild(r.Context(), ns, provision.ChildSpec{Parent: p, Name: "eth0", MAC: rec.Spec.MAC})
	if err != nil {
		r.Fatal(err)
	}
	move := func() error {
		return r.k.MoveIn(r.Context(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:" + id})
	}
	if err := move(); !errors.Is(err, provision.ErrGone) {
		r.Fatalf("moved into an interface without an address: %v", err)
	}
	r.w.configure(ns, c, rec.Binding.Address, rec.Binding.Router)
	if err := move(); err != nil {
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

// stop ends the container, as the engine does: the link goes, then the address
// is given up.
func (r *rig) stopPool(rec Record) {
	r.Helper()
	r.w.killSpace(rec.NS.Ino)
	r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
	if err := r.k.GiveUp(r.Context(), "pool", rec.Pool.Answered); err != nil {
		r.Fatal(err)
	}
	r.settle()
}

// A restart within the delay goes on with the lease under the identifier that
// acquired it; a server that is silent then does not end it.
func TestPoolRestart(t *testing.T) {
	for name, silent := range map[string]bool{"server answers": false, "server is silent": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.reserve("web", time.Minute)
				r.stopPool(rec)
				r.w.messages()
				if silent {
					r.server(func(s *server) { s.up = false })
				}
				again := r.reserved("web", time.Minute, rec.ID)
				if again.ID != rec.ID || again.Binding.Address != rec.Binding.Address || string(again.Spec.ClientID) != string(rec.Spec.ClientID) {
					t.Errorf("got %s %v %x after %s %v %x", again.ID, again.Binding.Address, again.Spec.ClientID, rec.ID, rec.Binding.Address, rec.Spec.ClientID)
				}
				time.Sleep(5 * time.Minute)
				if v := r.one(); v.Pool.Held() || v.State != Kept {
					t.Errorf("%s, pool %+v", v.State, v.Pool)
				}
			})
		})
	}
}

// A restart that fails leaves the lease held, for its whole delay again.
func TestPoolRestartFails(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", time.Minute)
		r.stopPool(rec)
		time.Sleep(10 * time.Second) // and the 40 of stop
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		if _, err := r.k.Reserve(ctx, r.options("web", provision.Namespace{}), Pool{ID: "pool"}, rec.ID, func(string) {}); err == nil {
			t.Fatal("reserved by a caller that is gone")
		}
		time.Sleep(40 * time.Second)
		if v := r.one(); !v.Pool.Held() || v.Binding.Address != rec.Binding.Address {
			t.Fatalf("%s %v, pool %+v", v.State, v.Binding, v.Pool)
		}
		r.w.messages()
		time.Sleep(time.Minute)
		r.wire("RELEASE parent unicast")
	})
}

// A held lease is not released once somebody else has its address.
func TestPoolTakenOver(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", time.Minute)
		r.stopPool(rec)
		r.w.messages()
		r.w.mu.Lock()
		r.w.holders[rec.Binding.Address.Addr()] = []byte{2, 0, 0, 0, 9, 9}
		r.w.mu.Unlock()
		time.Sleep(2 * time.Minute)
		r.wire()
		if vs := r.k.Leases("", false); len(vs) != 0 {
			t.Errorf("left: %+v", vs)
		}
	})
}

// The address that was answered gives a lease up, whatever it has become.
func TestPoolGiveUp(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", time.Minute)
		other := rec.Binding.Address.Addr().Next()
		if err := r.k.GiveUp(r.Context(), "pool", other); err != nil {
			t.Fatal(err)
		}
		if v := r.one(); v.Pool.Held() {
			t.Fatalf("held after the give-up of %v", other)
		}
		r.server(func(s *server) { s.move[rec.Spec.MAC.String()] = other })
		if _, err := r.k.Renew(r.Context(), rec.ID); err != nil {
			t.Fatal(err)
		}
		if v := r.one(); v.Binding.Address.Addr() != other {
			t.Fatalf("still has %v", v.Binding.Address)
		}
		if err := r.k.GiveUp(r.Context(), "pool", rec.Pool.Answered); err != nil {
			t.Fatal(err)
		}
		if v := r.one(); !v.Pool.Held() {
			t.Errorf("%s, pool %+v", v.State, v.Pool)
		}
	})
}

// The default route is left alone until its maker is done with the interface,
// looked after when it leads through the lease's router, and left alone for
// good when it does not.
func TestPoolRoute(t *testing.T) {
	for name, other := range map[string]bool{"the lease's": false, "another": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.reserve("web", time.Minute)
				router := rec.Binding.Router
				if other {
					router = router.Next()
				}
				r.w.configure(rec.NS, rec.Child, rec.Binding.Address, router)
				if cfg := r.w.kids()["web/eth0"].cfg; cfg.Router.IsValid() {
					t.Errorf("route via %v before the interface was done", cfg.Router)
				}
				if err := r.k.Settled(r.Context(), rec.ID, Target{Kind: TargetDocker, Name: "docker:web"}, "lan", "webhost", false); err != nil {
					t.Fatal(err)
				}
				v := r.one()
				if v.Pool.Network != "lan" || v.Spec.Hostname != "webhost" || v.Renewals != 1 {
					t.Errorf("network %q, host name %q, %d renewals", v.Pool.Network, v.Spec.Hostname, v.Renewals)
				}
				want := rec.Binding.Router
				if other {
					want = netip.Addr{}
				}
				if got := r.w.kids()["web/eth0"].cfg.Router; got != want {
					t.Errorf("default route via %v, want %v", got, want)
				}
			})
		})
	}
}

// A made parent outlives its leases while somebody else needs it.
func TestPoolParent(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.mu.Lock()
		r.w.makeParents = true
		r.w.mu.Unlock()
		used := true
		r.k.parentUsed = func(string) bool { return used }
		r.w.removeParent(r.k, parent)
		rec := r.reserve("web", 0)
		r.stopPool(rec)
		time.Sleep(time.Minute)
		if len(r.w.removed) != 0 {
			t.Errorf("removed %v", r.w.removed)
		}
		used = false
		r.k.DropParent(parent)
		if len(r.w.removed) != 1 {
			t.Errorf("removed %v", r.w.removed)
		}
	})
}

// A lease that is held for longer than it is leased is renewed meanwhile, and
// ends with its delay; a server that is silent lets it expire.
func TestPoolHeldLong(t *testing.T) {
	for name, silent := range map[string]bool{"server answers": false, "server is silent": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.reserve("web", 48*time.Hour)
				r.stopPool(rec)
				if silent {
					r.server(func(s *server) { s.up = false })
				}
				time.Sleep(30 * time.Hour)
				vs := r.k.Leases("", false)
				if silent {
					if len(vs) != 0 {
						t.Errorf("left past its expiry: %+v", vs)
					}
					return
				}
				if len(vs) != 1 || !vs[0].Pool.Held() || vs[0].State != Kept || vs[0].Renewals == 0 || len(r.w.kids()) != 0 {
					t.Fatalf("held: %+v, children %v", vs, r.w.kids())
				}
				r.halt()
				r.start()
				time.Sleep(15 * time.Hour)
				again := r.reserved("web", 48*time.Hour, rec.ID)
				if again.ID != rec.ID || again.Binding.Address != rec.Binding.Address {
					t.Errorf("got %s %v after %s %v", again.ID, again.Binding.Address, rec.ID, rec.Binding.Address)
				}
				r.stopPool(r.moveIn("web2", again))
				r.w.messages()
				time.Sleep(49 * time.Hour)
				if got := r.w.messages(); len(got) == 0 || got[len(got)-1] != "RELEASE parent unicast" {
					t.Errorf("on the wire %q", got)
				}
				if vs := r.k.Leases("", false); len(vs) != 0 {
					t.Errorf("left past its delay: %+v", vs)
				}
			})
		})
	}
}

// A parent that is made for a lease that is held for long goes with it.
func TestPoolHeldMakesParent(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.reserve("web", 20*time.Hour)
		r.stopPool(rec)
		r.w.removeParent(r.k, parent)
		r.w.mu.Lock()
		r.w.makeParents = true
		r.w.mu.Unlock()
		removed := func() int {
			r.w.mu.Lock()
			defer r.w.mu.Unlock()
			return len(r.w.removed)
		}
		time.Sleep(10 * time.Hour)
		if v := r.one(); v.Renewals == 0 || v.LastError != "" || removed() != 0 {
			t.Fatalf("renewed %d times, %q, %d parents removed", v.Renewals, v.LastError, removed())
		}
		time.Sleep(11 * time.Hour)
		if vs := r.k.Leases("", false); len(vs) != 0 || removed() != 1 {
			t.Errorf("left %+v, %d parents removed", vs, removed())
		}
	})
}
