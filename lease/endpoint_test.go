// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/provision"
)

// child reserves a lease with its child parked, for an endpoint.
func (r *rig) child(id, endpoint, held string) (Record, error) {
	o := r.options(id, provision.Namespace{})
	o.Spec.Ifname = "mv" + endpoint
	o.Spec.MAC = r.k.MAC(parent, id, "eth0")
	return r.k.ReserveChild(r.Context(), o, Pool{ID: "net", Delay: time.Minute, Endpoint: endpoint}, held, func(string) {})
}

// join moves the parked child into a namespace, as an engine does.
func (r *rig) join(rec Record, name string) provision.Namespace {
	r.Helper()
	ns := r.w.addSpace(name)
	r.w.mu.Lock()
	k, err := r.w.kid(rec.NS, rec.Child)
	if err == nil {
		r.w.move(k, r.w.spaces[ns.Ino])
		k.Name = "eth0"
	}
	r.w.mu.Unlock()
	if err != nil {
		r.Fatal(err)
	}
	return ns
}

// The child of an endpoint runs the exchange, is parked, is followed into its
// namespace and deleted with the endpoint; the lease is held and goes on with
// the next endpoint of the identity.
func TestEndpoint(t *testing.T) {
	sim(t, func(r *rig) {
		rec, err := r.child("web", "e1", "")
		if err != nil {
			r.Fatal(err)
		}
		if k, ok := r.w.kids()["host/mve1"]; !ok || k.mode != provision.Bridge || rec.State != Kept {
			r.Fatalf("%s, children %v", rec.State, r.w.kids())
		}
		r.halt()
		r.start() // a keeper killed before the engine takes the child
		if _, ok := r.k.Endpoint("e1"); !ok {
			r.Fatal("endpoint forgotten")
		}
		if rec, err = r.k.Join(r.Context(), "e1", "/run/netns/web"); err != nil || rec.Pool.Sandbox != "/run/netns/web" {
			r.Fatal(rec.Pool, err)
		}
		ns := r.join(rec, "web")
		if err := r.k.MoveIn(r.Context(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:web"}); err != nil {
			r.Fatal(err)
		}
		time.Sleep(7 * time.Hour)
		if v := r.one(); v.State != Bound || v.Renewals != 1 || r.onKid("web/eth0") != rec.Binding.Address.String() {
			r.Errorf("%s, renewed %d times, on the child %q", v.State, v.Renewals, r.onKid("web/eth0"))
		}
		r.w.messages()
		for range 2 {
			if err := r.k.EndEndpoint(r.Context(), "e1", "mve1"); err != nil {
				r.Fatal(err)
			}
		}
		if len(r.w.kids()) != 0 || !r.one().Pool.Held() {
			r.Errorf("children %v, lease %+v", r.w.kids(), r.one().Pool)
		}
		again, err := r.child("web", "e2", r.one().ID)
		if err != nil || again.Binding.Address != rec.Binding.Address {
			r.Errorf("again %v: %v", again.Binding, err)
		}
		r.wire("REQUEST packet broadcast") // INIT-REBOOT
		if err := r.k.EndEndpoint(r.Context(), "e2", "mve2"); err != nil {
			r.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		r.wire("RELEASE parent unicast")
		if vs := r.k.Leases("", false); len(vs)+len(r.w.kids()) != 0 {
			r.Errorf("left: %+v, %v", vs, r.w.kids())
		}
	})
}

// An engine that was killed leaves the child in a namespace without a path: the
// next endpoint of the identity has its MAC all the same.
func TestEndpointOfKilledEngine(t *testing.T) {
	sim(t, func(r *rig) {
		rec, err := r.child("web", "e1", "")
		if err != nil {
			r.Fatal(err)
		}
		ns := r.join(rec, "web")
		if err := r.k.MoveIn(r.Context(), rec.ID, ns, Target{Kind: TargetDocker, Name: "docker:web"}); err != nil {
			r.Fatal(err)
		}
		e, release, err := r.k.seize(r.Context(), rec.ID)
		if err != nil {
			r.Fatal(err)
		}
		r.k.hold(e) // as when no path leads to the namespace any more
		release()
		if v := r.one(); !v.Pool.Held() || r.onKid("web/eth0") == "gone" {
			r.Fatalf("%s, pool %+v, child %q", v.State, v.Pool, r.onKid("web/eth0"))
		}
		again, err := r.child("web", "e2", rec.ID)
		if err != nil || again.Binding.Address != rec.Binding.Address || r.onKid("web/eth0") != "gone" {
			r.Errorf("again %v: %v, former child %q", again.Binding, err, r.onKid("web/eth0"))
		}
	})
}

// Without an answer nothing is left; a lease reserved without a child can be
// given one, once.
func TestEndpointFailsAndGiven(t *testing.T) {
	sim(t, func(r *rig) {
		r.server(func(s *server) { s.up = false })
		if _, err := r.child("web", "e1", ""); err == nil {
			r.Error("no server, and no error")
		}
		if vs := r.k.Leases("", true); len(vs)+len(r.w.kids()) != 0 {
			r.Errorf("left: %+v, %v", vs, r.w.kids())
		}
		r.server(func(s *server) { s.up = true })
		rec, err := r.k.Reserve(r.Context(), r.options("db", provision.Namespace{}), Pool{ID: "pool"}, "", func(string) {})
		if err != nil {
			r.Fatal(err)
		}
		given, err := r.k.GiveChild(r.Context(), rec.ID, "e2", "mve2", func(s *Spec) { s.MTU = 1400 })
		if err != nil || given.Spec.MTU != 1400 || given.Pool.Endpoint != "e2" {
			r.Errorf("%+v: %v", given, err)
		}
		if _, ok := r.w.kids()["host/mve2"]; !ok {
			r.Errorf("children %v", r.w.kids())
		}
		if _, err := r.k.GiveChild(r.Context(), rec.ID, "e3", "mve3", func(*Spec) {}); err == nil {
			r.Error("given twice")
		}
		if _, err := r.k.Join(r.Context(), "e9", ""); err == nil {
			r.Error("joined an endpoint that is not there")
		}
		if _, err := r.k.Release(r.Context(), rec.ID, "by hand"); err != nil || len(r.w.kids()) != 0 {
			r.Errorf("released: %v, children %v", err, r.w.kids())
		}
	})
}

func TestNetworks(t *testing.T) {
	dir := t.TempDir()
	open := func() *BoltStore {
		s, _, _, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if all, err := s.Networks(); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := s.PutNetwork(id, []byte("of "+id)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"b", "z"} {
		if err := s.DeleteNetwork(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.PutNetwork("d", nil) == nil {
		t.Error("stored after Close")
	}
	s = open()
	defer s.Close()
	all, err := s.Networks()
	if diff := cmp.Diff(map[string][]byte{"a": []byte("of a"), "c": []byte("of c")}, all); diff != "" || err != nil {
		t.Error(diff, err)
	}
}
