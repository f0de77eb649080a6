// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// fleet attaches n identities, in turn to each of the parents.
func (r *rig) fleet(n int, parents ...string) {
	r.Helper()
	r.server(func(s *server) { s.size = 2 * n })
	for i := range n {
		o := r.options(name(i), r.w.addSpace(name(i)))
		o.Spec.Parent = parents[i%len(parents)]
		if _, err := r.attachTo(o); err != nil {
			r.Fatalf("attach %s: %v", name(i), err)
		}
	}
	r.settle()
	r.got()
	r.w.messages()
}

// meter is the packet rate at the server from now on.
type meter struct{ at []time.Duration }

func (r *rig) meter() *meter {
	m := &meter{}
	r.w.mu.Lock()
	r.w.watch = func(s sent) { m.at = append(m.at, s.at) }
	r.w.mu.Unlock()
	return m
}

// most is the most messages in any second.
func (m *meter) most() (most int) {
	first := 0
	for i, at := range m.at {
		for at-m.at[first] >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// A thousand leases on two parents with one server: when both are up again all
// are verified within 30 s, and the server never gets more than 100 messages in
// a second, retransmissions counted.
func TestVerifyPaced(t *testing.T) {
	const n = 1000
	for name, tc := range map[string]struct {
		loss   float64
		within time.Duration
	}{"clean": {0, 30 * time.Second}, "a fifth lost": {0.2, 5 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				const other = "ens192.101"
				r.w.addParent(other)
				r.fleet(n, parent, other)
				for _, p := range []string{parent, other} {
					r.w.setParent(r.k, p, false)
				}
				time.Sleep(time.Hour)
				r.w.mu.Lock()
				r.w.loss = tc.loss
				r.w.mu.Unlock()
				m := r.meter()
				for _, p := range []string{parent, other} {
					r.w.setParent(r.k, p, true)
				}
				time.Sleep(tc.within)
				synctest.Wait()
				if c := r.k.EventCounts(); c[EvRebound] != n || c[EvBound] != n {
					r.Errorf("within %v: %v", tc.within, c)
				}
				if most := m.most(); most > 100 || len(m.at) < n || most < 50 {
					r.Errorf("%d messages, at most %d in a second", len(m.at), most)
				}
				t.Logf("%d messages in %v, at most %d in a second", len(m.at), m.at[len(m.at)-1]-m.at[0], m.most())
			})
		})
	}
}

// Expired leases of a parent that comes back ask for new ones at the same rate.
func TestExpiredPaced(t *testing.T) {
	const n = 300
	sim(t, func(r *rig) {
		r.fleet(n, parent)
		r.w.setParent(r.k, parent, false)
		time.Sleep(20 * time.Hour)
		r.got()
		m := r.meter()
		r.w.setParent(r.k, parent, true)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if c := r.k.EventCounts(); c[EvBound] != 2*n || c[EvExpired] != n {
			r.Errorf("events %v", c)
		}
		if most := m.most(); most > 100 || len(m.at) != 2*n {
			r.Errorf("%d messages, at most %d in a second", len(m.at), most)
		}
	})
}

// A hundred flaps are no more work than one, send nothing while the parent is
// down, and leave nothing behind.
func TestFlapping(t *testing.T) {
	const n = 1000
	sim(t, func(r *rig) {
		r.fleet(n, parent)
		var ms runtime.MemStats
		heap := func() uint64 {
			runtime.GC()
			runtime.ReadMemStats(&ms)
			return ms.HeapAlloc
		}
		before, goroutines := heap(), runtime.NumGoroutine()
		wasted, total := 0, 0
		r.w.mu.Lock()
		r.w.watch = func(s sent) {
			if total++; s.down {
				wasted++
			}
		}
		r.w.mu.Unlock()
		for i := range 100 {
			r.w.setParent(r.k, parent, false)
			time.Sleep(time.Duration(i%7) * 30 * time.Millisecond)
			r.w.setParent(r.k, parent, true)
			time.Sleep(time.Duration(i%5) * 60 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if wasted > 0 || total < n || total > n+n/4 {
			r.Errorf("%d messages for %d leases, %d of them while it was down", total, n, wasted)
		}
		if c := r.k.EventCounts(); c[EvParentDown] != 100 || c[EvParentUp] != 100 || c[EvExpired] != 0 {
			r.Errorf("events %v", c)
		}
		for _, v := range r.k.Leases("", false) {
			if v.State != Bound || v.ParentDown != "" {
				r.Fatalf("%s: %s, %q", v.Spec.Identity, v.State, v.ParentDown)
			}
		}
		r.got()
		if after, g := heap(), runtime.NumGoroutine(); after > before+before/2 || g > goroutines {
			r.Errorf("heap %d, was %d; %d goroutines, were %d", after, before, g, goroutines)
		}
		if len(r.k.parents) != 1 || len(r.k.changed) != 0 {
			r.Errorf("%d parents, %d changes remembered", len(r.k.parents), len(r.k.changed))
		}
	})
}

// A renewal under way when the parent goes down ends without another packet, and
// the lease is verified when it is up again.
func TestDownInAnExchange(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.server(func(s *server) { s.up = false })
		time.Sleep(7 * time.Hour) // tries of a renewal are under way
		r.w.setParent(r.k, parent, false)
		r.w.setParent(r.k, parent, true) // INIT-REBOOT, which goes unanswered
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.w.setParent(r.k, parent, false)
		r.w.messages()
		time.Sleep(time.Minute)
		r.wire()
		if v := r.one(); v.ParentDown != "has no carrier" || !strings.Contains(v.LastError, "has no carrier") {
			r.Errorf("%q, %q", v.ParentDown, v.LastError)
		}
		r.server(func(s *server) { s.up = true })
		r.w.setParent(r.k, parent, true)
		time.Sleep(10 * time.Second)
		r.wire("REQUEST packet broadcast")
	})
}

// A parent that flaps while a lease on it is busy doesn't leave it unverified.
func TestUpWhileBusy(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.server(func(s *server) { s.up = false })
		r.w.setParent(r.k, parent, false)
		r.w.setParent(r.k, parent, true)
		time.Sleep(time.Second) // INIT-REBOOT is under way
		r.w.setParent(r.k, parent, false)
		r.w.setParent(r.k, parent, true)
		r.server(func(s *server) {
			s.up = true
			s.drop(rec.Spec.MAC.String())
			s.owner[rec.Binding.Address.Addr()] = "other"
			s.grants["other"] = &grant{rec.Binding.Address.Addr(), never}
		})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if v := r.one(); v.State != Bound || v.Binding.Address == rec.Binding.Address {
			r.Errorf("%s with %v", v.State, v.Binding.Address)
		}
		if c := r.k.EventCounts(); c[EvNAK] != 1 {
			r.Errorf("events %v", c)
		}
	})
}

// Silence after the parent came up leaves the address in use; it is verified
// once the server is back, however late.
func TestVerifiedLate(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.got()
		r.server(func(s *server) { s.up = false })
		r.w.setParent(r.k, parent, false)
		r.w.setParent(r.k, parent, true)
		time.Sleep(time.Hour)
		r.want(EvParentDown, EvParentUp)
		if v := r.one(); v.State != InitReboot || r.onKid("web/eth0") == "" {
			r.Errorf("%s, on the child %q", v.State, r.onKid("web/eth0"))
		}
		r.w.mu.Lock()
		if n := len(r.w.log); n > 60 {
			r.Errorf("%d messages in an hour", n)
		}
		r.w.mu.Unlock()
		r.server(func(s *server) { s.up = true })
		time.Sleep(30 * time.Minute)
		r.want(EvRebound)
	})
}

// An address that moved while the parent was down is changed in place; one that
// is refused goes at once.
func TestMovedWhileDown(t *testing.T) {
	sim(t, func(r *rig) {
		moved, refused := r.attach("moved"), r.attach("refused")
		r.settle()
		r.got()
		r.w.setParent(r.k, parent, false)
		time.Sleep(time.Hour)
		to := netip.MustParseAddr("10.0.1.99")
		r.server(func(s *server) {
			s.drop(refused.Spec.MAC.String())
			s.lie = func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { // answers INIT-REBOOT with another address
				if mac := moved.Spec.MAC.String(); req.ClientHWAddr.String() == mac && reply.MessageType() == dhcpv4.MessageTypeAck {
					s.grants[mac].addr, s.owner[to] = to, mac
					reply.YourIPAddr = to.AsSlice()
				}
				if req.ClientHWAddr.String() == refused.Spec.MAC.String() && reply.MessageType() == dhcpv4.MessageTypeOffer {
					return nil
				}
				return []*dhcpv4.DHCPv4{reply}
			}
		})
		r.w.setParent(r.k, parent, true)
		time.Sleep(5 * time.Second)
		if got := r.onKid("moved/eth0"); got != "10.0.1.99/16" {
			r.Errorf("moved: %q", got)
		}
		if got := r.onKid("refused/eth0"); got != "" {
			r.Errorf("refused: %q", got)
		}
		c := r.k.EventCounts()
		if c[EvNAK] != 1 || c[EvChanged] != 1 {
			r.Errorf("events %v", c)
		}
	})
}

// Events that were lost don't disturb a renewal's times.
func TestResyncKeepsTimes(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.server(func(s *server) { s.up = false })
		time.Sleep(7 * time.Hour)
		r.w.messages()
		v := r.one()
		if v.State != Renewing {
			r.Fatalf("%s", v.State)
		}
		for range 10 {
			r.k.Observe(provision.Event{Kind: provision.Resync})
			time.Sleep(time.Second)
		}
		r.wire()
		if v := r.one(); v.State != Renewing {
			r.Errorf("%s", v.State)
		}
	})
}

// A child that was being made under a passing name is made properly.
func TestUnfinishedChild(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.halt()
		r.w.mu.Lock()
		for _, s := range r.w.spaces {
			for _, c := range s.kids {
				c.Name, c.cfg, c.alias = provision.TemporaryName(c.MAC), provision.Config{}, ""
			}
		}
		r.w.mu.Unlock()
		r.start()
		time.Sleep(5 * time.Second)
		if got := r.onKid("web/eth0"); got != rec.Binding.Address.String() || len(r.w.kids()) != 1 {
			r.Errorf("%q, %d children", got, len(r.w.kids()))
		}
	})
}

// A lease of an address pool is healed with its parent, in the mode of the child
// that somebody else had made; a child that goes alone is given up.
func TestPoolChildRemade(t *testing.T) {
	for name, withParent := range map[string]bool{"parent deleted": true, "child deleted": false} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				o := r.options("docker:p/web", provision.Namespace{})
				o.Spec.MAC = []byte{2, 0x42, 0, 0, 0, 9}
				rec, err := r.k.Reserve(context.Background(), o, Pool{ID: "p", Delay: 5 * time.Second}, "", func(string) {})
				if err != nil {
					r.Fatal(err)
				}
				ns := r.w.addSpace("web")
				p, _ := r.w.Parent(parent)
				child, err := r.w.CreateChild(context.Background(), ns, provision.ChildSpec{Parent: p, Name: "eth0", MAC: rec.Spec.MAC, Mode: provision.VEPA})
				if err != nil {
					r.Fatal(err)
				}
				r.w.configure(ns, child, rec.Binding.Address, rec.Binding.Router)
				if err := r.k.MoveIn(context.Background(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:web"}); err != nil {
					r.Fatal(err)
				}
				r.settle()
				if !withParent {
					if err := r.w.DeleteChild(ns, child); err != nil {
						r.Fatal(err)
					}
					r.k.Observe(provision.Event{Kind: provision.ChildGone, NSID: child.NSID, Index: child.Index})
					time.Sleep(time.Second)
					if v := r.one(); !v.Pool.Held() {
						r.Errorf("%s, not held", v.State)
					}
					return
				}
				r.w.removeParent(r.k, parent)
				time.Sleep(time.Minute)
				r.w.addParent(parent)
				p, _ = r.w.Parent(parent)
				r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent, Index: p.Index})
				time.Sleep(5 * time.Second)
				if k := r.w.kids()["web/eth0"]; r.onKid("web/eth0") != rec.Binding.Address.String() || k.MAC.String() != rec.Spec.MAC.String() || k.mode != provision.VEPA {
					r.Errorf("%q, %+v", r.onKid("web/eth0"), k)
				}
				if v := r.one(); v.State != Bound || v.Pool.Held() || len(r.w.srv.released) > 0 {
					r.Errorf("%s, released %v", v.State, r.w.srv.released)
				}
			})
		})
	}
}

// Somebody who takes the address off again and again gets no fight: it comes
// back at once, then after 10 s, 20 s, and so on.
func TestRepairBackOff(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.got()
		r.w.messages()
		harm := func() {
			r.w.Unconfigure(rec.NS, rec.Child)
			r.k.Observe(provision.Event{Kind: provision.ChildChanged, NSID: rec.Child.NSID, Index: rec.Child.Index})
		}
		harm()
		time.Sleep(time.Second)
		if got := r.onKid("web/eth0"); got != rec.Binding.Address.String() {
			r.Errorf("after a second: %q", got)
		}
		start, n := time.Now(), 0
		for time.Since(start) < 10*time.Minute {
			if r.onKid("web/eth0") != "" {
				n++
				harm()
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n < 4 || n > 8 {
			r.Errorf("put back %d times in 10 minutes", n)
		}
		r.wire() // none of it is the server's business
		if c := r.k.EventCounts(); c[EvRepaired] < 4 || c[EvRepaired] > 8 {
			r.Errorf("events %v", c)
		}
	})
}

// What a child's namespace is full of is looked at seldom, and a lease at rest
// stays at rest.
func TestChangeStorm(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.w.messages()
		r.got()
		for i := range 200_000 {
			r.k.Observe(provision.Event{Kind: provision.ChildChanged, NSID: rec.Child.NSID, Index: rec.Child.Index + i%(2*maxChanged)})
		}
		r.k.mu.Lock()
		if n := len(r.k.changed); n > maxChanged {
			r.Errorf("%d changes wait", n)
		}
		r.k.mu.Unlock()
		time.Sleep(time.Hour)
		r.wire()
		r.want()
	})
}

// A child that was set down comes up again, and one that was renamed is followed.
func TestChildSetDownAndRenamed(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.got()
		kid := func() *kid { return r.w.spaces[rec.NS.Ino].kids[rec.Child.Index] }
		r.w.mu.Lock()
		kid().down = true
		r.w.mu.Unlock()
		r.k.Observe(provision.Event{Kind: provision.ChildChanged, Name: "eth0", NSID: rec.Child.NSID, Index: rec.Child.Index})
		time.Sleep(time.Second)
		r.want(EvRepaired)
		r.w.mu.Lock()
		kid().Name = "lan9"
		r.w.mu.Unlock()
		r.k.Observe(provision.Event{Kind: provision.ChildChanged, Name: "lan9", Up: true, NSID: rec.Child.NSID, Index: rec.Child.Index})
		time.Sleep(repairFirst + time.Second)
		r.want(EvChanged)
		if v := r.one(); v.Spec.Ifname != "lan9" || v.Child.Name != "lan9" || v.Binding.Address != rec.Binding.Address {
			r.Errorf("%s, %+v", v.Spec.Ifname, v.Child)
		}
		r.w.removeParent(r.k, parent)
		r.w.addParent(parent)
		r.k.Observe(provision.Event{Kind: provision.ParentUp, Name: parent})
		time.Sleep(5 * time.Second)
		if got := r.onKid("web/lan9"); got != rec.Binding.Address.String() {
			r.Errorf("made again: %q", got)
		}
	})
}

var _ dhcpclient.Conn = (*guarded)(nil)
