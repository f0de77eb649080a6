// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mvdhcp/provision"
)

// A parent is deleted and made again: every child has its address at once, also
// with a silent server, and is verified at the pace when that answers.
func TestRemade(t *testing.T) {
	const n = 200
	for name, silent := range map[string]bool{"server answers": false, "server silent": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				r.fleet(n, parent)
				had := map[string]string{}
				for k, v := range r.w.kids() {
					had[k] = v.has(r.w.clock.Now()).String() + " " + v.MAC.String()
				}
				r.w.removeParent(r.k, parent)
				time.Sleep(time.Minute)
				if v := r.k.Leases("", false)[0]; !v.ParentGone || v.ParentDown != "is gone" {
					r.Errorf("%+v", v)
				}
				r.wire()
				r.server(func(s *server) { s.up = !silent })
				r.w.addParent(parent)
				m := r.meter()
				p, _ := r.w.Parent(parent)
				r.k.Observe(provision.Event{Kind: provision.ParentAdded, Name: parent, Index: p.Index})
				r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent, Index: p.Index})
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				for k, v := range r.w.kids() {
					if got := v.has(r.w.clock.Now()).String() + " " + v.MAC.String(); got != had[k] {
						r.Errorf("%s: %s, had %s", k, got, had[k])
					}
				}
				if got := len(r.w.kids()); got != n {
					r.Fatalf("%d children", got)
				}
				time.Sleep(10 * time.Second)
				if silent {
					if len(r.w.srv.released) > 0 {
						r.Error("leases were released")
					}
					return
				}
				synctest.Wait()
				if c := r.k.EventCounts(); c[EvHealed] != n || c[EvRebound] != n || c[EvReleased] != 0 || c[EvBound] != n {
					r.Errorf("events %v", c)
				}
				if most := m.most(); most > 100 || len(m.at) != n {
					r.Errorf("%d messages, at most %d in a second", len(m.at), most)
				}
			})
		})
	}
}

// A parent that is back but down is left to others for a moment, then raised.
func TestRemadeDown(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.w.removeParent(r.k, parent)
		time.Sleep(time.Minute)
		r.w.addParent(parent)
		r.w.mu.Lock()
		r.w.parents[parent].Up, r.w.parents[parent].Carrier = false, false
		r.w.mu.Unlock()
		p, _ := r.w.Parent(parent)
		r.k.Observe(provision.Event{Kind: provision.ParentAdded, Name: parent, Index: p.Index})
		time.Sleep(raiseAfter - time.Second)
		if p, _ := r.w.Parent(parent); p.Up {
			r.Error("raised at once")
		}
		time.Sleep(2 * time.Second)
		if p, _ := r.w.Parent(parent); !p.Up || r.onKid("web/eth0") != "10.0.1.1/16" {
			r.Errorf("up %v, on the child %q", p.Up, r.onKid("web/eth0"))
		}
	})
}

// A VLAN that this program made is made again on its trunk; another's isn't.
func TestVLANRemade(t *testing.T) {
	for name, ours := range map[string]bool{"ours": true, "not ours": false} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				r.w.makeParents = true
				const vlan = "ens192.200"
				if !ours {
					r.w.addParent(vlan)
				}
				o := r.options("web", r.w.addSpace("web"))
				o.Spec.Parent = vlan
				if _, err := r.attachTo(o); err != nil {
					r.Fatal(err)
				}
				r.settle()
				r.w.mu.Lock()
				r.w.makeParents = false // while the trunk is missing
				r.w.mu.Unlock()
				r.w.removeParent(r.k, vlan)
				time.Sleep(time.Minute)
				r.w.mu.Lock()
				r.w.makeParents = true
				r.w.mu.Unlock()
				r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: "ens192", Index: 4})
				time.Sleep(time.Second)
				got := r.onKid("web/eth0")
				if _, err := r.w.Parent(vlan); (err == nil) != ours || (got == "10.0.1.1/16") != ours {
					r.Errorf("the VLAN: %v; on the child %q", err, got)
				}
			})
		})
	}
}

// A parent that went with its last lease is made for the next one, which does not
// wait for the event of that.
func TestMadeAgain(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.makeParents, r.w.tellRemoved = true, r.k
		o := r.options("web", r.w.addSpace("web"))
		o.Spec.Parent = "ens192.200"
		for range 2 {
			rec, err := r.attachTo(o)
			if err != nil {
				r.Fatal(err)
			}
			r.settle()
			if _, err := r.k.Release(r.Context(), rec.ID, "detached"); err != nil {
				r.Fatal(err)
			}
		}
	})
}

// A target that ends while its child is missing has its lease released once the
// parent is back.
func TestEndsWhileMissing(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.w.removeParent(r.k, parent)
		time.Sleep(time.Minute)
		r.w.killSpace(rec.NS.Ino)
		r.k.Sweep()
		time.Sleep(time.Second)
		if v := r.one(); v.State != Releasing {
			r.Errorf("%s", v.State)
		}
		r.wire("DISCOVER packet broadcast", "REQUEST packet broadcast")
		r.w.addParent(parent)
		p, _ := r.w.Parent(parent)
		r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent, Index: p.Index})
		time.Sleep(time.Second)
		r.wire("RELEASE parent unicast")
	})
}

// Leases follow a parent to its new name, also with a keeper that wasn't there.
func TestParentRenamed(t *testing.T) {
	for name, away := range map[string]bool{"seen": false, "while the keeper was down": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("web")
				r.settle()
				r.got()
				if away {
					r.halt()
				}
				r.w.mu.Lock()
				p := r.w.parents[parent]
				delete(r.w.parents, parent)
				p.Name = "lan0"
				r.w.parents["lan0"] = p
				for _, s := range r.w.spaces {
					for _, c := range s.kids {
						c.parent = "lan0"
					}
				}
				r.w.mu.Unlock()
				if away {
					r.start()
				} else {
					r.k.Observe(provision.Event{Kind: provision.ParentRenamed, Name: "lan0", OldName: parent, Index: p.Index})
				}
				time.Sleep(10 * time.Second)
				r.want(EvParentRenamed)
				if v := r.one(); v.Spec.Parent != "lan0" || v.ParentDown != "" || v.State != Bound {
					r.Errorf("%s, %s, %q", v.Spec.Parent, v.State, v.ParentDown)
				}
				r.w.messages()
				time.Sleep(7 * time.Hour)
				r.wire("REQUEST udp unicast")
				r.w.killSpace(rec.NS.Ino)
				r.k.Sweep()
				time.Sleep(time.Second)
				r.wire("RELEASE parent unicast")
			})
		})
	}
}

// A parent that moves to another namespace keeps its children; they are made
// again on a new link of its name.
func TestParentMoved(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.got()
		r.w.mu.Lock()
		p := r.w.parents[parent]
		delete(r.w.parents, parent)
		for _, s := range r.w.spaces {
			for _, c := range s.kids {
				c.Parent, c.parent = 0, "elsewhere"
			}
		}
		r.w.mu.Unlock()
		r.k.Observe(provision.Event{Kind: provision.ParentGone, Name: parent, Index: p.Index})
		time.Sleep(time.Second)
		r.want(EvParentGone)
		if v := r.one(); !v.ParentGone || !strings.Contains(v.LastError, "moved to another namespace") || v.State != Bound {
			r.Errorf("%s, %q", v.State, v.LastError)
		}
		r.w.messages()
		r.w.addParent(parent)
		p2, _ := r.w.Parent(parent)
		r.k.Observe(provision.Event{Kind: provision.ParentAdded, Name: parent, Index: p2.Index})
		r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent, Index: p2.Index})
		time.Sleep(5 * time.Second)
		if k := r.w.kids()["web/eth0"]; k.parent != parent || r.onKid("web/eth0") != "10.0.1.1/16" {
			r.Errorf("child on %s with %q", k.parent, r.onKid("web/eth0"))
		}
		r.w.mu.Lock()
		for _, s := range r.w.log {
			if s.String() != "REQUEST packet broadcast" {
				r.Errorf("sent %v", s)
			}
		}
		r.w.mu.Unlock()
	})
}

// Children are raised with their parent's MTU, as far as the lease allows.
func TestParentMTU(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.srv.mtu = 1450
		r.attach("web")
		r.settle()
		r.got()
		p, _ := r.w.Parent(parent)
		for _, mtu := range [][2]int{{1500, 1400}, {1400, 1500}} {
			r.k.Observe(provision.Event{Kind: provision.ParentChanged, Name: parent, Index: p.Index, OldMTU: mtu[0], MTU: mtu[1]})
		}
		time.Sleep(time.Second)
		evs := r.want(EvParentChanged, EvParentChanged)
		if len(evs) == 2 && (evs[1].Old["mtu"] != "1400" || evs[1].New["mtu"] != "1500") {
			r.Errorf("%+v", evs[1])
		}
		if got := r.w.kids()["web/eth0"].followed; len(got) != 1 || got[0] != [2]int{1400, 1450} {
			r.Errorf("followed %v", got)
		}
	})
}
