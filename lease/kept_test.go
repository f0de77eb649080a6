// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"mvdhcp/dhcpclient"
)

// An attach that fails after the server has confirmed a kept lease leaves it
// kept: its address is not given back.
func TestAttachFailsOnKept(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
			r.Fatal(err)
		}
		time.Sleep(time.Hour)
		r.w.messages()
		r.w.mu.Lock()
		r.w.applyErr = errors.New("no")
		r.w.mu.Unlock()
		if _, err := r.attachTo(r.options("web", r.w.addSpace("web2"))); err == nil {
			r.Fatal("attached")
		}
		r.wire("REQUEST packet broadcast")
		v := r.one()
		if v.State != Kept || v.ID != rec.ID || v.Binding.Address != rec.Binding.Address || len(r.w.kids()) != 0 {
			r.Fatalf("%s %v, children %v", v.State, v.Binding, r.w.kids())
		}
		if left := time.Until(v.ExpiresAt); left < 11*time.Hour+59*time.Minute {
			r.Errorf("expires in %v, though it was extended", left)
		}
		time.Sleep(11*time.Hour + 30*time.Minute)
		if v := r.one(); v.State != Kept {
			r.Error(v.State)
		}
	})
}

// A kept lease of another address is no reason to take that one when one is
// demanded.
func TestAttachKeptOfAnotherAddress(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
			r.Fatal(err)
		}
		o := r.options("web", r.w.addSpace("web2"))
		o.Spec.RequestIP = rec.Binding.Address.Addr().Next()
		r.w.messages()
		var refused *dhcpclient.RefusedIPError
		if _, err := r.attachTo(o); !errors.As(err, &refused) || refused.Want != o.Spec.RequestIP {
			r.Errorf("the server has another address for it: %v", err)
		}
		r.wire("DISCOVER packet broadcast")
		if v := r.one(); v.State != Kept {
			r.Error(v.State)
		}
	})
}

// A keeper that is killed at any write of an attach from a kept lease leaves it
// kept: the next one takes the child away and gives nothing back.
func TestAttachFromKeptInterrupted(t *testing.T) {
	for name, moves := range map[string]bool{"confirmed": false, "refused": true} {
		for n := 0; ; n++ {
			reached := false
			t.Run(fmt.Sprintf("%s, write %d", name, n+1), func(t *testing.T) {
				sim(t, func(r *rig) {
					rec := r.attach("web")
					r.settle()
					if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
						r.Fatal(err)
					}
					if moves { // the server has another address for it
						r.server(func(s *server) {
							s.drop(rec.Spec.MAC.String())
							s.bad[rec.Binding.Address.Addr()] = never
						})
					}
					var wrote []Record
					r.store.onPut = func(w Record) { wrote = append(wrote, w) }
					if _, err := r.attachTo(r.options("web", r.w.addSpace("web2"))); err != nil {
						r.Fatal(err)
					}
					r.store.onPut = nil
					r.halt()
					if n == len(wrote) || wrote[n].Established {
						return
					}
					reached = true
					if err := r.store.Put(wrote[n]); err != nil {
						r.Fatal(err)
					}
					r.w.messages()
					r.start()
					time.Sleep(time.Second)
					if moves && wrote[n].Offered != nil {
						r.wire("RELEASE packet unicast")
					} else {
						r.wire()
					}
					v := r.one()
					if v.State != Kept || v.ID != rec.ID || v.Binding.Address != rec.Binding.Address || len(r.w.kids()) != 0 {
						r.Errorf("%s %v, children %v", v.State, v.Binding, r.w.kids())
					}
					time.Sleep(13 * time.Hour)
					if vs := r.k.Leases("", false); len(vs) != 0 {
						r.Errorf("after its expiry: %+v", vs)
					}
				})
			})
			if !reached {
				if n == 0 {
					t.Errorf("%s: no write before the lease is bound", name)
				}
				break
			}
		}
	}
}

// A kept lease whose identity is attached with another MAC is given back once
// that has its own, and stays kept when that fails.
func TestAttachKeptOfAnotherMAC(t *testing.T) {
	for name, tc := range map[string]struct {
		id   string // the client identifier of both
		wire []string
	}{
		"another client": {"", []string{"DISCOVER packet broadcast", "REQUEST packet broadcast", "RELEASE parent unicast"}},
		"same address":   {"same", []string{"DISCOVER packet broadcast", "REQUEST packet broadcast"}},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				o := r.options("web", r.w.addSpace("web"))
				o.ClientID = tc.id
				rec, err := r.attachTo(o)
				if err != nil {
					r.Fatal(err)
				}
				r.settle()
				if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
					r.Fatal(err)
				}
				o.NS, o.Spec.MAC = r.w.addSpace("web2"), net.HardwareAddr{2, 0, 0, 0, 7, 7}
				r.server(func(s *server) { s.up = false })
				if _, err := r.attachTo(o); err == nil {
					r.Fatal("attached without a server")
				}
				if v := r.one(); v.ID != rec.ID || v.State != Kept {
					r.Fatalf("after a failed attach: %s", v.State)
				}
				r.server(func(s *server) {
					if s.up = true; tc.id != "" { // it goes by the client identifier
						mac, addr := o.Spec.MAC.String(), rec.Binding.Address.Addr()
						s.grants[mac], s.owner[addr] = s.grants[rec.Spec.MAC.String()], mac
						delete(s.grants, rec.Spec.MAC.String())
					}
				})
				r.w.messages()
				again, err := r.attachTo(o)
				if err != nil {
					r.Fatal(err)
				}
				r.settle()
				r.wire(tc.wire...)
				if same := again.Binding.Address == rec.Binding.Address; same != (tc.id != "") {
					r.Errorf("%v, it was %v", again.Binding.Address, rec.Binding.Address)
				}
				if v := r.one(); v.ID != again.ID || v.State != Bound {
					r.Errorf("left: %s %s", v.ID, v.State)
				}
			})
		})
	}
}
