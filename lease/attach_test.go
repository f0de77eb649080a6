// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// The intent is stored before anything happens and the binding before the
// kernel has it; the child is closed to its siblings until there is an answer.
func TestAttach(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.watch = func(s sent) {
			if s.kind == dhcpv4.MessageTypeDiscover {
				r.store.mu.Lock()
				defer r.store.mu.Unlock()
				if !slices.Equal(r.store.wrote, []string{"init"}) {
					r.Errorf("stored before DISCOVER: %v", r.store.wrote)
				}
				for _, s := range r.w.spaces {
					for _, k := range s.kids {
						if k.mode != provision.Private {
							r.Errorf("mode %s in DISCOVER", k.mode)
						}
					}
				}
			}
		}
		rec := r.attach("web")
		r.settle()
		r.want(EvBound)
		k := r.w.kids()["web/eth0"]
		if k.mode != provision.Bridge || k.cfg.Address != rec.Binding.Address || k.cfg.Router != r.w.srv.router {
			r.Errorf("child %+v", k)
		}
		if id := rec.Spec.ClientID; len(id) != 7 || id[0] != 1 {
			r.Errorf("client id %x", id)
		}
		if n := r.w.announced[rec.Binding.Address.Addr()]; n < 2 {
			r.Errorf("announced %d times", n)
		}
		if got := r.store.wrote; !slices.Equal(got, []string{"init", "requesting", "bound"}) {
			r.Errorf("stored %v", got)
		}
		r.w.watch = nil
		got, err := r.k.Release(r.Context(), rec.ID, "detached")
		if err != nil || got.State != Ended {
			r.Errorf("released: %s, %v", got.State, err)
		}
		time.Sleep(time.Second)
		r.wire("RELEASE packet unicast")
		r.want(EvReleased)
		if r.onKid("web/eth0") != "gone" || len(r.w.srv.grants) != 0 {
			r.Errorf("left: %q, %v", r.onKid("web/eth0"), r.w.srv.grants)
		}
	})
}

// What stands in the way of an attach is named, and stays as it is.
func TestAttachRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(r *rig, o *AttachOptions, web Record)
		is     error
		want   string
	}{
		"the identity elsewhere": {func(r *rig, o *AttachOptions, _ Record) { o.Spec.Identity = "web" }, ErrAttached, "detach it first"},
		"the identity, no ifname": {func(r *rig, o *AttachOptions, web Record) {
			o.Spec.Identity, o.Spec.Ifname, o.NS = "web", "", web.NS
		}, ErrAttached, "detach it first"},
		"the interface": {func(r *rig, o *AttachOptions, web Record) { o.NS = web.NS }, ErrAttached, "interface eth0"},
		"the MAC":       {func(r *rig, o *AttachOptions, web Record) { o.Spec.MAC = web.Spec.MAC }, ErrAttached, "MAC"},
		"a kept MAC": {func(r *rig, o *AttachOptions, web Record) {
			if _, err := r.k.Keep(context.Background(), web.ID); err != nil {
				r.Fatal(err)
			}
			o.Spec.MAC = web.Spec.MAC
		}, ErrAttached, "is kept for web"},
		"a foreign interface": {func(r *rig, o *AttachOptions, _ Record) {
			p, _ := r.w.Parent(parent)
			if _, err := r.w.CreateChild(r.Context(), o.NS, provision.ChildSpec{Parent: p, Name: "eth0", MAC: net.HardwareAddr{2, 9, 9, 9, 9, 9}}); err != nil {
				r.Fatal(err)
			}
		}, provision.ErrBusy, "eth0"},
		"a namespace that is gone": {func(r *rig, o *AttachOptions, _ Record) { r.w.killSpace(o.NS.Ino) }, provision.ErrGone, "new"},
		"a parent that is missing": {func(r *rig, o *AttachOptions, _ Record) { o.Spec.Parent = "ens999" }, provision.ErrGone, "ens999"},
		"a bad client id":          {func(r *rig, o *AttachOptions, _ Record) { o.ClientID = "hex:zz" }, nil, "hexadecimal"},
		"no carrier": {func(r *rig, o *AttachOptions, _ Record) {
			r.w.addParent("ens224")
			r.w.mu.Lock()
			r.w.parents["ens224"].Carrier = false
			r.w.mu.Unlock()
			o.Spec.Parent = "ens224"
		}, provision.ErrInvalid, "check its cable or switch port"},
		"no server": {func(r *rig, o *AttachOptions, _ Record) {
			r.server(func(s *server) { s.up = false })
		}, dhcpclient.ErrNoAnswer, "answered"},
		"an address that is not offered": {func(r *rig, o *AttachOptions, web Record) {
			o.Spec.RequestIP = web.Binding.Address.Addr()
		}, nil, "instead of the requested"},
		"a store that fails": {func(r *rig, o *AttachOptions, _ Record) {
			r.store.mu.Lock()
			defer r.store.mu.Unlock()
			r.store.putErr = errors.New("disk full")
		}, nil, "disk full"},
		"a kernel that refuses": {func(r *rig, o *AttachOptions, _ Record) {
			r.w.mu.Lock()
			defer r.w.mu.Unlock()
			r.w.applyErr = provision.ErrUnsupported
		}, provision.ErrUnsupported, "configure"},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				web := r.attach("web")
				r.settle()
				o := r.options("new", r.w.addSpace("new"))
				tc.change(r, &o, web)
				before := r.w.kids()
				_, err := r.attachTo(o)
				if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) || strings.HasSuffix(err.Error(), ": invalid") {
					r.Errorf("error %v, want %q", err, tc.want)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				if after := r.w.kids(); len(after) != len(before) {
					r.Errorf("children %v before and %v after", before, after)
				}
				if vs := r.k.Leases("", false); len(vs) != 1 || vs[0].Spec.Identity != "web" {
					r.Errorf("leases %+v", vs)
				}
				r.w.mu.Lock()
				defer r.w.mu.Unlock()
				if mac := DeriveMAC("m", o.Spec.Parent, "new", "eth0").String(); r.w.srv.grants[mac] != nil && r.w.srv.grants[mac].until > r.w.clock.Now()+time.Minute {
					r.Errorf("the server still has a lease for what was undone")
				}
			})
		})
	}
}

// An attach that is cancelled, wherever it stands, leaves nothing behind.
func TestAttachCancelled(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Microsecond, 1500 * time.Microsecond, 2500 * time.Microsecond, 3500 * time.Microsecond, 10 * time.Millisecond, 3 * time.Second, 25 * time.Second} {
		for _, how := range []string{"caller", "keeper stops"} {
			t.Run(how+" "+after.String(), func(t *testing.T) {
				sim(t, func(r *rig) {
					if after >= time.Second {
						r.w.srv.up = false
					}
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					done := make(chan error)
					o := r.options("web", r.w.addSpace("web"))
					o.Spec.Conflict = dhcpclient.ConflictWait
					r.w.makeParents, o.Spec.Parent = true, "ens192.7"
					go func() {
						_, err := r.k.Attach(ctx, o, func(string) {})
						done <- err
					}()
					time.Sleep(after)
					if how == "caller" {
						cancel()
					} else {
						go r.halt()
					}
					if err := <-done; err == nil {
						r.Fatal("attached")
					}
					time.Sleep(time.Second)
					if n := len(r.w.kids()); n != 0 {
						r.Errorf("%d children left", n)
					}
					if rs, _ := r.store.All(); len(rs) != 0 || len(r.k.Leases("", true)) != 0 {
						r.Errorf("records left: %+v", rs)
					}
					if _, err := r.w.Parent("ens192.7"); err == nil {
						r.Error("the parent that was made for it is left")
					}
					time.Sleep(2 * time.Minute)
					r.server(func(s *server) {
						for mac, g := range s.grants {
							if g.until > r.w.clock.Now() {
								r.Errorf("%s still has %v at the server", mac, g.addr)
							}
						}
					})
				})
			})
		}
	}
}

// A detach or release of a lease whose attach is under way undoes the attach.
func TestAttachCalledOff(t *testing.T) {
	for name, end := range map[string]func(k *Keeper, id string) (Record, error){
		"release": func(k *Keeper, id string) (Record, error) { return k.Release(context.Background(), id, "detached") },
		"keep":    func(k *Keeper, id string) (Record, error) { return k.Keep(context.Background(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				r.w.srv.up = false
				done := make(chan error)
				go func() {
					_, err := r.attachTo(r.options("web", r.w.addSpace("web")))
					done <- err
				}()
				time.Sleep(3 * time.Second)
				if rec, err := end(r.k, r.one().ID); err != nil || rec.State != Ended {
					r.Errorf("state %s, error %v", rec.State, err)
				}
				if err := <-done; err == nil || !strings.Contains(err.Error(), "called off") || errors.Is(err, dhcpclient.ErrNoAnswer) {
					r.Errorf("the attach says %v", err)
				}
				if kids, vs := r.w.kids(), r.k.Leases("", true); len(kids) != 0 || len(vs) != 0 {
					r.Errorf("left: children %v, leases %+v", kids, vs)
				}
			})
		})
	}
}

// Who has an offered address, and what comes of it.
func TestConflictBeforeBind(t *testing.T) {
	first, second := netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.2")
	for name, have := range map[string]func(r *rig){
		"a foreign host": func(r *rig) { r.w.holders[first] = net.HardwareAddr{2, 9, 9, 9, 9, 9} },
		"this host":      func(r *rig) { r.w.hostHas[first] = "br0" },
		"a sibling": func(r *rig) {
			a := r.attach("sibling")
			r.settle()
			r.server(func(s *server) { s.drop(a.Spec.MAC.String()) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				have(r)
				r.w.messages()
				start := r.w.clock.Now()
				rec := r.attach("web")
				if rec.Binding.Address.Addr() != second {
					r.Errorf("bound to %v", rec.Binding.Address)
				}
				if d := r.w.srv.declined; !slices.Equal(d, []netip.Addr{first}) {
					r.Errorf("declined %v", d)
				}
				if took := r.w.clock.Now() - start; took < declineWait { // RFC 2131, 3.1.5
					r.Errorf("DISCOVER %v after the DECLINE", took)
				}
				if r.k.EventCounts()[EvConflict] != 1 {
					r.Errorf("events %v", r.k.EventCounts())
				}
			})
		})
	}
	t.Run("the address that was asked for", func(t *testing.T) {
		sim(t, func(r *rig) {
			r.w.holders[first] = net.HardwareAddr{2, 9, 9, 9, 9, 9}
			o := r.options("web", r.w.addSpace("web"))
			o.Spec.RequestIP = first
			_, err := r.attachTo(o)
			if conflict := (*dhcpclient.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Addr != first {
				r.Errorf("error %v", err)
			}
		})
	})
}

// A host that turns up with the address after it was bound: DECLINE, address
// off, ten seconds, another address.
func TestConflictAfterBind(t *testing.T) {
	for _, check := range []dhcpclient.ConflictCheck{dhcpclient.ConflictFast, dhcpclient.ConflictAsync} {
		t.Run(string(check), func(t *testing.T) {
			sim(t, func(r *rig) {
				o := r.options("web", r.w.addSpace("web"))
				o.Spec.Conflict = check
				rec, err := r.attachTo(o)
				if err != nil {
					r.Fatal(err)
				}
				addr := rec.Binding.Address.Addr()
				r.w.mu.Lock()
				r.w.holders[addr] = net.HardwareAddr{2, 9, 9, 9, 9, 9}
				r.w.mu.Unlock()
				time.Sleep(5 * time.Second)
				if got := r.onKid("web/eth0"); got != "" {
					r.Errorf("five seconds later the kernel has %q", got)
				}
				r.want(EvBound, EvConflict)
				time.Sleep(4 * time.Second)
				r.wire("DISCOVER packet broadcast", "REQUEST packet broadcast", "DECLINE packet broadcast")
				r.settle()
				r.want(EvBound)
				if got := r.onKid("web/eth0"); got != "10.0.1.2/16" {
					r.Errorf("later the kernel has %q", got)
				}
			})
		})
	}
	t.Run("off", func(t *testing.T) {
		sim(t, func(r *rig) {
			o := r.options("web", r.w.addSpace("web"))
			o.Spec.Conflict = dhcpclient.ConflictOff
			r.w.holders[netip.MustParseAddr("10.0.1.1")] = net.HardwareAddr{2, 9, 9, 9, 9, 9}
			if _, err := r.attachTo(o); err != nil {
				r.Fatal(err)
			}
			r.settle()
			if len(r.w.probed) != 0 || r.onKid("web/eth0") != "10.0.1.1/16" {
				r.Errorf("probed %v, on the child %q", r.w.probed, r.onKid("web/eth0"))
			}
		})
	})
}

// A container made anew under its name goes on with the lease of the one
// before, also when that one's end was not noticed yet.
func TestAttachAgain(t *testing.T) {
	sim(t, func(r *rig) {
		old := r.attach("web")
		r.settle()
		r.w.killSpace(old.NS.Ino)
		rec, err := r.attachTo(r.options("web", r.w.addSpace("web")))
		if err != nil || rec.ID != old.ID || rec.Binding.Address != old.Binding.Address || rec.Spec.MAC.String() != old.Spec.MAC.String() {
			r.Errorf("%+v, %v", rec, err)
		}
	})
}

// An attach waits for the release that its identity still owes, and says so
// when its time is over.
func TestAttachAfterReleasing(t *testing.T) {
	for name, up := range map[string]bool{"parent up in time": true, "parent stays down": false} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				old := r.attach("web")
				r.settle()
				r.w.setParent(r.k, parent, false)
				if _, err := r.k.Release(r.Context(), old.ID, "detached"); err != nil {
					r.Fatal(err)
				}
				if up {
					time.AfterFunc(10*time.Second, func() { r.w.setParent(r.k, parent, true) })
				}
				rec, err := r.attachTo(r.options("web", r.w.addSpace("web2")))
				if up != (err == nil) || up && rec.ID == old.ID {
					r.Errorf("%s, %v", rec.ID, err)
				}
				if !up && !errors.Is(err, context.DeadlineExceeded) {
					r.Errorf("error %v", err)
				}
			})
		})
	}
}

// A kept lease that is busy at the moment of an attach is used all the same.
func TestAttachWhileKeptBusy(t *testing.T) {
	sim(t, func(r *rig) {
		old := r.attach("web")
		r.settle()
		if _, err := r.k.Keep(r.Context(), old.ID); err != nil {
			r.Fatal(err)
		}
		_, release, err := r.k.own(r.Context(), r.k.leases[old.ID], false)
		if err != nil {
			r.Fatal(err)
		}
		time.AfterFunc(time.Second, release)
		rec, err := r.attachTo(r.options("web", r.w.addSpace("web2")))
		if err != nil || rec.ID != old.ID {
			r.Errorf("%s instead of %s, %v", rec.ID, old.ID, err)
		}
	})
}

// Several interfaces of one container: names in order, DNS put back by the last.
func TestSecondInterfaceAndDNS(t *testing.T) {
	sim(t, func(r *rig) {
		file := provision.ResolvFile{}
		r.w.resolv[file] = "nameserver 192.0.2.1\n"
		ns := r.w.addSpace("web")
		var recs []Record
		for i, id := range []string{"web", "db"} {
			o := r.options(id, ns)
			o.Spec.Ifname, o.Spec.DNS, o.Resolv = "", true, &file
			rec, err := r.attachTo(o)
			if err != nil || rec.Spec.Ifname != []string{"eth0", "eth1"}[i] {
				r.Fatalf("%q, %v", rec.Spec.Ifname, err)
			}
			recs = append(recs, rec)
		}
		for _, rec := range recs {
			if s := r.w.resolv[file]; !strings.Contains(s, "10.0.0.53") {
				r.Errorf("resolv.conf:\n%s", s)
			}
			if _, err := r.k.Release(r.Context(), rec.ID, "detached"); err != nil {
				r.Fatal(err)
			}
		}
		if s := r.w.resolv[file]; s != "nameserver 192.0.2.1\n" {
			r.Errorf("resolv.conf after both:\n%s", s)
		}
	})
}

// A parent made for a lease goes with its last lease.
func TestMadeParentGoesLast(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.makeParents = true
		var recs []Record
		for _, id := range []string{"a", "b"} {
			o := r.options(id, r.w.addSpace(id))
			o.Spec.Parent = "ens192.7"
			rec, err := r.attachTo(o)
			if err != nil {
				r.Fatal(err)
			}
			recs = append(recs, rec)
		}
		for i, rec := range recs {
			if len(r.w.removed) != 0 {
				r.Errorf("before release %d: removed %v", i, r.w.removed)
			}
			if _, err := r.k.Release(r.Context(), rec.ID, "detached"); err != nil {
				r.Fatal(err)
			}
		}
		if !slices.Equal(r.w.removed, []string{"ens192.7"}) {
			r.Errorf("removed %v", r.w.removed)
		}
	})
}

// A made parent that still has children goes when the kernel lets go of them,
// whether the keeper was started anew meanwhile or not, unless a lease is on it
// again.
func TestMadeParentGoesLater(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			sim(t, func(r *rig) {
				r.w.makeParents = true
				attach := func(id string) Record {
					o := r.options(id, r.w.addSpace(id))
					o.Spec.Parent = "ens192.7"
					rec, err := r.attachTo(o)
					if err != nil {
						r.Fatal(err)
					}
					return rec
				}
				release := func(rec Record) {
					if _, err := r.k.Release(r.Context(), rec.ID, "detached"); err != nil {
						r.Fatal(err)
					}
				}
				rec := attach("a")
				r.w.busyParents = true
				release(rec)
				r.k.Sweep()
				if restart {
					r.halt()
					r.start()
				}
				r.w.busyParents = false
				if again {
					rec = attach("b")
				}
				for range 2 {
					time.Sleep(time.Minute)
					r.k.Sweep()
				}
				if again {
					if len(r.w.removed) != 0 {
						r.Errorf("removed %v with a lease on it", r.w.removed)
					}
					release(rec)
				}
				if !slices.Equal(r.w.removed, []string{"ens192.7"}) {
					r.Errorf("restart %v, again %v: removed %v", restart, again, r.w.removed)
				}
			})
		}
	}
}
