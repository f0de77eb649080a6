// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/provision"
)

// A keeper that starts anew on the leases of one before it sends nothing for
// those that are valid, and renews them when they are due.
func TestRestart(t *testing.T) {
	for name, tc := range map[string]struct {
		away time.Duration
		boot string
		want []string
	}{
		"before T1":    {time.Hour, "boot", nil},
		"past T1":      {7 * time.Hour, "boot", []string{"REQUEST packet broadcast"}},
		"another boot": {time.Hour, "boot-2", []string{"REQUEST packet broadcast"}},
		"past expiry":  {13 * time.Hour, "boot", []string{"DISCOVER packet broadcast", "REQUEST packet broadcast"}},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("web")
				r.settle()
				r.halt()
				r.w.messages()
				time.Sleep(tc.away)
				r.w.clock.id = tc.boot
				r.start()
				time.Sleep(time.Minute)
				r.wire(tc.want...)
				v := r.one()
				if v.ID != rec.ID || v.State != Bound || r.onKid("web/eth0") != "10.0.1.1/16" {
					r.Errorf("%s %s, on the child %q", v.ID, v.State, r.onKid("web/eth0"))
				}
				if tc.want == nil {
					time.Sleep(6 * time.Hour)
					r.wire("REQUEST udp unicast")
				}
			})
		})
	}
}

// After a restart with a silent server an address stays until it expires.
func TestRestartWithoutServer(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.halt()
		r.server(func(s *server) { s.up = false })
		time.Sleep(7 * time.Hour)
		r.start()
		time.Sleep(4 * time.Hour)
		if got := r.onKid("web/eth0"); got != "10.0.1.1/16" {
			r.Errorf("an hour before its expiry: %q", got)
		}
		time.Sleep(2 * time.Hour)
		if got := r.onKid("web/eth0"); got != "" {
			r.Errorf("after its expiry: %q", got)
		}
	})
}

// A lease whose namespace went while no keeper ran is released from the parent,
// as the child.
func TestOrphanReleased(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.halt()
		r.w.killSpace(rec.NS.Ino)
		r.w.messages()
		r.start()
		time.Sleep(time.Second)
		r.wire("RELEASE parent unicast")
		r.want(EvReleased)
		if got := r.w.srv.released; len(got) != 1 || got[0] != rec.Binding.Address.Addr() {
			r.Errorf("the server was given back %v", got)
		}
		if vs := r.k.Leases("", true); len(vs) != 1 || vs[0].State != Ended {
			r.Errorf("left: %+v", vs)
		}
	})
}

// An attach that its keeper did not live to finish is undone by the next one:
// child away, and what the server may have granted given back.
func TestHalfDoneAttach(t *testing.T) {
	for name, offered := range map[string]bool{"before the offer": false, "after the request": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				full := r.attach("web")
				r.settle()
				r.halt()
				half := full
				half.Established, half.Binding, half.State, half.BoundAt = false, nil, Selecting, Moment{}
				if offered {
					half.State, half.Offered = Requesting, full.Binding
				}
				if err := r.store.Put(half); err != nil {
					r.Fatal(err)
				}
				r.w.messages()
				r.start()
				time.Sleep(time.Second)
				if offered {
					r.wire("RELEASE packet unicast")
				} else {
					r.wire()
				}
				if got := r.onKid("web/eth0"); got != "gone" {
					r.Errorf("its child: %s", got)
				}
				if vs := r.k.Leases("", false); len(vs) != 0 {
					r.Errorf("leases %+v", vs)
				}
			})
		})
	}
}

// A release that is owed is sent by the next keeper, and is not ended before
// the parent can carry it.
func TestReleaseResumed(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.w.setParent(r.k, parent, false)
		got, err := r.k.Release(r.Context(), rec.ID, "detached")
		if err != nil || got.State != Releasing {
			r.Fatalf("released on a parent that is down: %s, %v", got.State, err)
		}
		if s := r.onKid("web/eth0"); s != "gone" {
			r.Errorf("its child: %q", s)
		}
		r.halt()
		r.w.messages()
		r.start()
		time.Sleep(10 * time.Minute)
		r.wire()
		r.w.setParent(r.k, parent, true)
		time.Sleep(time.Second)
		r.wire("RELEASE parent unicast")
		if vs := r.k.Leases("", true); len(vs) != 1 || vs[0].State != Ended || vs[0].EndReason != "detached" {
			r.Errorf("left: %+v", vs)
		}
	})
}

// After a boot the namespace may stand anew under its name: the lease waits for
// it, and takes it up with its address.
func TestNamespaceAfterBoot(t *testing.T) {
	for name, back := range map[string]bool{"stands anew": true, "stays away": false} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("web")
				r.settle()
				r.halt()
				r.got()
				r.w.killSpace(rec.NS.Ino)
				r.w.clock.id = "boot-2"
				r.w.messages()
				r.start()
				time.Sleep(20 * time.Second)
				if !back {
					time.Sleep(time.Minute)
					r.wire("RELEASE parent unicast")
					return
				}
				r.w.addSpace("web")
				time.Sleep(10 * time.Second)
				r.wire("REQUEST packet broadcast") // INIT-REBOOT
				if got := r.onKid("web/eth0"); got != rec.Binding.Address.String() {
					r.Errorf("on the new child: %q", got)
				}
				if got := r.w.kids()["web/eth0"].MAC.String(); got != rec.Spec.MAC.String() {
					r.Errorf("MAC %s, it was %v", got, rec.Spec.MAC)
				}
			})
		})
	}
}

// A kept lease costs nothing, is used again by the next attach of its identity,
// and ends when it expires.
func TestKept(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.w.messages()
		kept, err := r.k.Keep(r.Context(), rec.ID)
		if err != nil || kept.State != Kept {
			r.Fatalf("%s, %v", kept.State, err)
		}
		if got := r.onKid("web/eth0"); got != "gone" {
			r.Errorf("its child: %q", got)
		}
		r.halt()
		time.Sleep(time.Hour)
		r.start() // it outlives a keeper
		time.Sleep(time.Hour)
		r.wire()

		r.server(func(s *server) { s.up = false }) // a failed attach leaves it kept
		o := r.options("web", r.w.addSpace("web2"))
		if _, err := r.attachTo(o); err == nil {
			r.Fatal("attached without a server")
		}
		if v := r.one(); v.State != Kept || v.ID != rec.ID || v.Binding == nil {
			r.Fatalf("after a failed attach: %s %+v", v.State, v.Binding)
		}
		r.server(func(s *server) { s.up = true })
		r.w.messages()
		again, err := r.attachTo(o)
		if err != nil || again.ID != rec.ID || again.Binding.Address != rec.Binding.Address {
			r.Fatalf("again: %+v, %v", again, err)
		}
		r.settle()
		r.wire("REQUEST packet broadcast")

		if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
			r.Fatal(err)
		}
		time.Sleep(13 * time.Hour)
		r.wire()
		if vs := r.k.Leases("", true); len(vs) != 1 || vs[0].State != Ended {
			r.Errorf("after its expiry: %+v", vs)
		}
		fresh, err := r.attachTo(o)
		if err != nil || fresh.ID == rec.ID {
			r.Errorf("after that: %s, %v", fresh.ID, err)
		}
	})
}

// While its parent is down a lease sends nothing; when it is up again all are
// verified, a hundred a second.
func TestParentDownAndUp(t *testing.T) {
	const n = 50
	sim(t, func(r *rig) {
		for i := range n {
			r.attach(name(i))
		}
		r.settle()
		r.w.setParent(r.k, parent, false)
		r.w.messages()
		r.got()
		time.Sleep(11 * time.Hour)
		r.wire()
		if v := r.k.Leases("", false)[0]; v.ParentDown == "" || v.State != Rebinding {
			r.Errorf("%s, parent down %q", v.State, v.ParentDown)
		}
		up := r.w.clock.Now()
		r.w.setParent(r.k, parent, true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.w.mu.Lock()
		for i, s := range r.w.log {
			if s.String() != "REQUEST packet broadcast" || s.kind != dhcpv4.MessageTypeRequest || s.ciaddr.IsValid() || s.at < up+time.Duration(i)*pace {
				r.Errorf("message %d, %v after the parent was up: %v", i, s.at-up, s)
			}
		}
		if len(r.w.log) != n {
			r.Errorf("%d messages for %d leases", len(r.w.log), n)
		}
		r.w.mu.Unlock()
		if c := r.k.EventCounts(); c[EvParentUp] != 1 || c[EvRebound] != n || c[EvExpired] != 0 {
			r.Errorf("events %v", c)
		}
	})
}

// A lease that expires while the parent is down asks for a new one after it.
func TestExpiryWhileParentDown(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.w.setParent(r.k, parent, false)
		r.w.messages()
		time.Sleep(20 * time.Hour)
		r.wire()
		if got := r.onKid("web/eth0"); got != "" {
			r.Errorf("after expiry: %q", got)
		}
		r.w.setParent(r.k, parent, true)
		time.Sleep(time.Second)
		r.wire("DISCOVER packet broadcast", "REQUEST packet broadcast")
		r.want(EvBound, EvParentDown, EvExpired, EvParentUp, EvBound)
	})
}

// A parent that goes takes the children with it. They are made again, with
// their MACs and addresses, once it is back.
func TestParentGoneAndHealed(t *testing.T) {
	for name, applyFails := range map[string]bool{"at once": false, "at the second try": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				a, b := r.attach("a"), r.attach("b")
				r.settle()
				r.got()
				r.w.removeParent(r.k, parent)
				time.Sleep(5 * time.Minute)
				r.w.addParent(parent)
				r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent})
				if applyFails {
					r.w.mu.Lock()
					r.w.applyErr = provision.ErrBusy
					r.w.mu.Unlock()
					time.Sleep(5 * time.Second)
					r.w.mu.Lock()
					r.w.applyErr = nil
					r.w.mu.Unlock()
				}
				time.Sleep(5 * time.Minute)
				for _, rec := range []Record{a, b} {
					if got := r.onKid(rec.Spec.Identity + "/eth0"); got != rec.Binding.Address.String() {
						r.Errorf("%s: %q, it was %v", rec.Spec.Identity, got, rec.Binding.Address)
					}
				}
				c := r.k.EventCounts()
				if c[EvParentGone] != 1 || c[EvHealed] != 2 || c[EvReleased] != 0 {
					r.Errorf("events %v", c)
				}
			})
		})
	}
}

// The address of a lease that expired while its child was missing is free for
// another one of this host.
func TestExpiredWhileMissing(t *testing.T) {
	sim(t, func(r *rig) {
		gone := r.attach("gone")
		r.settle()
		r.halt()
		r.w.mu.Lock()
		for _, s := range r.w.spaces {
			clear(s.kids)
		}
		r.w.mu.Unlock()
		r.w.clock.id = "boot-2"
		r.w.killSpace(gone.NS.Ino)
		time.Sleep(13 * time.Hour)
		r.start()
		time.Sleep(time.Second)
		r.server(func(s *server) { s.size = 1 })
		rec, err := r.attachTo(r.options("new", r.w.addSpace("new")))
		if err != nil || rec.Binding.Address != gone.Binding.Address {
			r.Errorf("%+v, %v", rec.Binding, err)
		}
	})
}

// A process target ends with its process, also where its namespace lives on;
// a deleted child ends its lease; a namespace that is reached by another path
// goes on.
func TestTargetGone(t *testing.T) {
	for name, tc := range map[string]struct {
		kind TargetKind
		end  func(r *rig, rec Record)
		want []EventKind
		via  []string
	}{
		"process exits": {TargetPID, func(r *rig, rec Record) {
			r.w.mu.Lock()
			r.w.spaces[rec.NS.Ino].dead = true
			r.w.mu.Unlock()
			r.k.Sweep()
		}, []EventKind{EvReleased}, []string{"RELEASE packet unicast"}},
		"namespace gone": {TargetNetNS, func(r *rig, rec Record) {
			r.w.killSpace(rec.NS.Ino)
			r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
		}, []EventKind{EvReleased}, []string{"RELEASE parent unicast"}},
		"child deleted": {TargetNetNS, func(r *rig, rec Record) {
			if err := r.w.DeleteChild(rec.NS, rec.Child); err != nil {
				r.Fatal(err)
			}
			r.k.Observe(provision.Event{Kind: provision.ChildGone, NSID: rec.Child.NSID, Index: rec.Child.Index})
		}, []EventKind{EvReleased}, []string{"RELEASE parent unicast"}},
		"path gone": {TargetNetNS, func(r *rig, rec Record) {
			r.w.mu.Lock()
			r.w.spaces[rec.NS.Ino].path = false
			r.w.mu.Unlock()
			r.k.Sweep()
		}, nil, nil},
		"path gone while it is looked at": {TargetNetNS, func(r *rig, rec Record) {
			r.w.mu.Lock()
			r.w.onFind = func() { r.w.spaces[rec.NS.Ino].path, r.w.onFind = false, nil }
			r.w.mu.Unlock()
			r.k.Observe(provision.Event{Kind: provision.Resync})
		}, nil, nil},
		"address taken off": {TargetNetNS, func(r *rig, rec Record) {
			r.w.Unconfigure(rec.NS, rec.Child)
			r.k.Observe(provision.Event{Kind: provision.Resync})
		}, []EventKind{EvRepaired}, nil},
		"false alarm": {TargetNetNS, func(r *rig, rec Record) {
			r.k.Observe(provision.Event{Kind: provision.Resync})
			r.k.Observe(provision.Event{Kind: provision.ChildGone, NSID: rec.Child.NSID, Index: rec.Child.Index})
			r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
			r.k.Sweep()
		}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				o := r.options("web", r.w.addSpace("web"))
				o.Target.Kind = tc.kind
				rec, err := r.attachTo(o)
				if err != nil {
					r.Fatal(err)
				}
				r.settle()
				r.got()
				r.w.messages()
				tc.end(r, rec)
				time.Sleep(5 * time.Second)
				r.want(tc.want...)
				r.wire(tc.via...)
				got := r.onKid("web/eth0")
				if ended := slices.Contains(tc.want, EvReleased); ended != (got == "gone") || !ended && got != rec.Binding.Address.String() {
					r.Errorf("on the child: %q", got)
				}
			})
		})
	}
}

// A parent that was made by an attach that a killed keeper left half done goes
// with it, unless another lease is on it.
func TestHalfDoneAttachMadeParent(t *testing.T) {
	for name, others := range map[string]bool{"alone": false, "beside another": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				full := r.attach("web")
				if others {
					r.attach("db")
				}
				r.settle()
				r.halt()
				full.Established, full.Binding, full.State, full.BoundAt = false, nil, Init, Moment{}
				if err := r.store.Put(full); err != nil {
					r.Fatal(err)
				}
				r.w.mu.Lock()
				r.w.parents[parent].Ours = true
				r.w.mu.Unlock()
				r.start()
				time.Sleep(time.Second)
				synctest.Wait()
				r.w.mu.Lock()
				defer r.w.mu.Unlock()
				if removed := len(r.w.removed) == 1; removed == others {
					r.Errorf("removed %v", r.w.removed)
				}
			})
		})
	}
}
