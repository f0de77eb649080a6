// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

var stranger = net.HardwareAddr{2, 0xbb, 0, 0, 0, 1}

// claims has a stranger, or whoever has the MAC, claim the address.
func (r *rig) claims(mac net.HardwareAddr, addr netip.Addr) {
	r.w.claim(parent, mac, addr)
	synctest.Wait()
}

// announcements is how often the address was announced since the last call.
func (r *rig) announcements(addr netip.Addr) (n int) {
	synctest.Wait()
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	n = r.w.announced[addr]
	r.w.announced[addr] = 0
	return n
}

// A lease is defended long after it was bound, once; the second claim within
// DefendInterval makes it give the address up.
func TestConflictInUse(t *testing.T) {
	for name, tc := range map[string]struct {
		gaps []time.Duration // between claims
		want []EventKind
		kept bool
	}{
		"once":             {[]time.Duration{0}, []EventKind{EvConflict}, true},
		"a burst":          {[]time.Duration{0, time.Millisecond, 900 * time.Millisecond}, []EventKind{EvConflict}, true},
		"twice, far apart": {[]time.Duration{0, dhcpclient.DefendInterval}, []EventKind{EvConflict, EvConflict}, true},
		"again":            {[]time.Duration{0, 9 * time.Second}, []EventKind{EvConflict, EvConflict, EvBound}, false},
		"again and again":  {[]time.Duration{0, 2 * time.Second, time.Second, time.Second}, []EventKind{EvConflict, EvConflict, EvBound}, false},
		"far apart, again": {[]time.Duration{0, time.Hour, 2 * time.Second}, []EventKind{EvConflict, EvConflict, EvConflict, EvBound}, false},
		"after a renewal":  {[]time.Duration{7 * time.Hour, 2 * time.Second}, []EventKind{EvRenewed, EvConflict, EvConflict, EvBound}, false},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("a")
				addr := rec.Binding.Address.Addr()
				r.settle()
				r.k.Sweep()
				r.want(EvBound)
				r.announcements(addr)
				for _, gap := range tc.gaps {
					time.Sleep(gap)
					r.claims(stranger, addr)
				}
				if n := r.announcements(addr); n == 0 {
					r.Error("the address was not defended")
				}
				if v := r.one(); tc.kept && (v.State != Bound || v.Binding.Address.Addr() != addr || !strings.Contains(v.LastError, stranger.String())) {
					r.Errorf("%s with %v, last error %q", v.State, v.Binding, v.LastError)
				} else if !tc.kept && v.Binding != nil {
					r.Errorf("%s with %v", v.State, v.Binding)
				}
				from := r.w.clock.Now()
				r.settle()
				evs := r.want(tc.want...)
				if tc.kept {
					return
				}
				if wait := evs[len(evs)-1].Time.Sub(evs[len(evs)-2].Time); wait < declineWait {
					r.Errorf("bound again %v after the DECLINE", wait)
				}
				r.server(func(s *server) {
					if len(s.declined) != 1 || s.declined[0] != addr {
						r.Errorf("declined %v, want %v", s.declined, addr)
					}
				})
				if v := r.one(); v.State != Bound || v.Binding.Address.Addr() == addr || v.BoundAt.Boot < from {
					r.Errorf("%s with %v", v.State, v.Binding)
				}
			})
		})
	}
}

// What is no conflict changes nothing and says nothing.
func TestNoConflictInUse(t *testing.T) {
	sim(t, func(r *rig) {
		addr := r.attach("a").Binding.Address.Addr()
		space := r.w.addSpace("b")
		b, err := r.attachTo(r.options("b", space))
		if err != nil {
			r.Fatal(err)
		}
		o := r.options("beside", space)
		o.Spec.Ifname = "eth1"
		beside, err := r.attachTo(o)
		if err != nil {
			r.Fatal(err)
		}
		o = r.options("off", r.w.addSpace("off"))
		o.Spec.Conflict = dhcpclient.ConflictOff
		off, err := r.attachTo(o)
		if err != nil {
			r.Fatal(err)
		}
		o = r.options("vepa", r.w.addSpace("vepa"))
		o.Spec.Mode = provision.VEPA
		vepa, err := r.attachTo(o)
		if err != nil {
			r.Fatal(err)
		}
		r.settle()
		r.k.Sweep()
		r.got()
		for range 3 {
			r.claims(stranger, netip.MustParseAddr("10.0.3.3"))
			r.claims(beside.Spec.MAC, b.Binding.Address.Addr())
			r.claims(stranger, off.Binding.Address.Addr())
			r.claims(vepa.Spec.MAC, vepa.Binding.Address.Addr())
			r.w.claim("another", stranger, addr)
			time.Sleep(2 * time.Second)
		}
		r.want()
	})
}

// A child that answers the host's own child is heard at the parent, and is not
// taken for another host.
func TestSameMACToOneAlone(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("a")
		r.settle()
		r.k.Sweep()
		r.want(EvBound)
		r.w.hear(rec.Spec.Parent, dhcpclient.Claim{MAC: [6]byte(rec.Spec.MAC), Addr: rec.Binding.Address.Addr(), Direct: true})
		synctest.Wait()
		r.want()
		if v := r.one(); v.LastError != "" {
			r.Errorf("last error %q", v.LastError)
		}
	})
}

// The same MAC on another host is told of, once a minute, and nothing else is
// done.
func TestSameMACElsewhere(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("cluster:a")
		addr := rec.Binding.Address.Addr()
		r.settle()
		r.k.Sweep()
		r.want(EvBound)
		r.announcements(addr)
		for range 30 {
			r.claims(rec.Spec.MAC, addr)
			time.Sleep(2 * time.Second)
		}
		r.want(EvConflict)
		r.claims(rec.Spec.MAC, addr)
		r.want(EvConflict)
		if n := r.announcements(addr); n != 0 {
			r.Errorf("announced %d times", n)
		}
		if v := r.one(); v.State != Bound || v.Binding.Address.Addr() != addr || !strings.Contains(v.LastError, "another host") {
			r.Errorf("%s with %v, last error %q", v.State, v.Binding, v.LastError)
		}
	})
}

// There is one listener a parent, from its first lease to its last, and again
// when the parent is back.
func TestListeners(t *testing.T) {
	sim(t, func(r *rig) {
		listeners := func(want int) {
			r.Helper()
			r.k.Sweep()
			synctest.Wait()
			r.w.mu.Lock()
			defer r.w.mu.Unlock()
			if len(r.w.heard) != want || len(r.k.watches) != want {
				r.Errorf("%d listeners open, %d known, want %d", len(r.w.heard), len(r.k.watches), want)
			}
		}
		before := goroutines()
		listeners(0)
		o := r.options("off", r.w.addSpace("off"))
		o.Spec.Conflict = dhcpclient.ConflictOff
		if _, err := r.attachTo(o); err != nil {
			r.Fatal(err)
		}
		listeners(0)
		var addr netip.Addr
		for i := range 50 {
			addr = r.attach(name(i)).Binding.Address.Addr()
		}
		r.settle()
		listeners(1)
		if n := goroutines() - before; n != 1 {
			r.Errorf("%d goroutines more", n)
		}
		r.w.removeParent(r.k, parent)
		listeners(0)
		r.w.addParent(parent)
		listeners(1)
		r.w.setParent(r.k, parent, true)
		time.Sleep(2 * time.Minute)
		r.got()
		r.claims(stranger, addr)
		r.want(EvConflict)
		for i := range 50 {
			if _, err := r.k.Release(r.Context(), r.k.Leases(name(i), false)[0].ID, "test"); err != nil {
				r.Fatal(err)
			}
		}
		listeners(0)
		r.attach("last")
		r.settle()
		listeners(1)
	})
}

// A host that claims everything does no more than make each lease move once in
// DefendInterval, and memory follows the number of leases alone.
func TestClaimStorm(t *testing.T) {
	sim(t, func(r *rig) {
		addrs := make([]netip.Addr, 20)
		for i := range addrs {
			addrs[i] = r.attach(name(i)).Binding.Address.Addr()
		}
		r.settle()
		r.k.Sweep()
		r.got()
		for i := range 10_000 {
			mac := net.HardwareAddr{2, 0xbb, 0, 0, byte(i >> 8), byte(i)}
			r.claims(mac, addrs[i%len(addrs)])
			r.claims(mac, netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}))
		}
		evs := r.got()
		if len(evs) != len(addrs) {
			r.Errorf("%d events", len(evs))
		}
		for w := range r.k.watches {
			if n := len(r.k.watches[w].seen); n > len(addrs) {
				r.Error(fmt.Sprint(n, " sightings"))
			}
		}
	})
}
