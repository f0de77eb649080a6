// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mvdhcp/provision"
)

// container attaches a container that has just been started.
func (r *rig) container(name string) Record {
	r.Helper()
	o := r.options(name, r.w.addSpace(name))
	o.Target = containerTarget(name)
	rec, err := r.attachTo(o)
	if err != nil {
		r.Fatalf("attach %s: %v", name, err)
	}
	r.settle()
	r.got()
	r.w.messages()
	return rec
}

func containerTarget(name string) Target {
	return Target{Kind: TargetDocker, Name: "docker:" + name, ContainerID: "id of " + name, PID: 1, PIDStart: 1}
}

// stop ends the namespace of a lease's container.
func (r *rig) stop(rec Record) {
	r.w.killSpace(rec.NS.Ino)
	r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
	synctest.Wait()
}

// startContainer runs the container of a lease in a namespace of its own.
func (r *rig) startContainer(rec Record, name string) {
	r.Helper()
	t := rec.Target
	t.PID++
	if err := r.k.ContainerStarted(r.Context(), rec.ID, t, r.w.addSpace(name), nil); err != nil {
		r.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

// waiting checks that the only lease waits for its container.
func (r *rig) waiting() View {
	r.Helper()
	v := r.one()
	if v.State != Kept || !v.Waiting {
		r.Errorf("the lease is %s, waiting %v", v.State, v.Waiting)
	}
	return v
}

// same checks that the only lease is bound as it was, on a child in the
// namespace of that name.
func (r *rig) same(rec Record, name string) {
	r.Helper()
	v := r.one()
	if v.ID != rec.ID || v.State != Bound || v.Waiting || v.Spec.MAC.String() != rec.Spec.MAC.String() || r.onKid(name+"/eth0") != rec.Binding.Address.String() {
		r.Errorf("%s %s, MAC %v, on the child %q; it was %s, MAC %v, %v", v.ID, v.State, v.Spec.MAC, r.onKid(name+"/eth0"), rec.ID, rec.Spec.MAC, rec.Binding.Address)
	}
}

// A container that stops and starts keeps its lease, and verifies it.
func TestContainerRestarts(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.stop(rec)
		r.want(EvKept)
		r.waiting()
		time.Sleep(time.Hour)
		r.wire()
		r.startContainer(rec, "web2")
		r.same(rec, "web2")
		r.wire("REQUEST packet broadcast")
		r.want(EvHealed, EvRebound)
		time.Sleep(7 * time.Hour)
		r.wire("REQUEST udp unicast")
	})
}

// The next start may be heard of before the end was noticed.
func TestContainerRestartsUnseen(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.w.killSpace(rec.NS.Ino)
		r.startContainer(rec, "web2")
		r.same(rec, "web2")
		r.wire("REQUEST packet broadcast")
		r.k.Observe(provision.Event{Kind: provision.NamespaceGone, NSID: rec.Child.NSID})
		time.Sleep(time.Second)
		r.same(rec, "web2")
		r.wire()
	})
}

// Told again of what it knows, the keeper does nothing.
func TestContainerStartedAgain(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		if err := r.k.ContainerStarted(r.Context(), rec.ID, rec.Target, rec.NS, nil); err != nil {
			r.Error(err)
		}
		other := rec.Target
		other.ContainerID = "another"
		if err := r.k.ContainerStarted(r.Context(), rec.ID, other, r.w.addSpace("other"), nil); err != nil {
			r.Error(err)
		}
		r.k.ContainerStopped(rec.ID)
		time.Sleep(time.Second)
		r.same(rec, "web")
		r.wire()
		r.want()
	})
}

// A container's end and start while no keeper ran lose nothing either; nor does
// a boot, after which the container's processes are others.
func TestContainerAcrossKeepers(t *testing.T) {
	for name, boot := range map[string]string{"same boot": "boot", "another boot": "boot-2"} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.container("web")
				r.halt()
				if r.w.clock.id == boot {
					r.w.killSpace(rec.NS.Ino)
				}
				r.w.clock.id = boot
				r.start()
				time.Sleep(time.Second)
				r.waiting()
				r.halt()
				time.Sleep(time.Hour)
				r.start()
				time.Sleep(time.Second)
				r.waiting()
				r.wire()
				r.w.killSpace(rec.NS.Ino)
				r.startContainer(rec, "web2")
				r.same(rec, "web2")
				r.wire("REQUEST packet broadcast")
			})
		})
	}
}

// A keeper killed while it attaches again leaves that to the next one.
func TestContainerHalfStarted(t *testing.T) {
	for name, tc := range map[string]struct {
		stopped time.Duration
		made    bool
		want    []string
	}{
		"child made":              {time.Hour, true, []string{"REQUEST packet broadcast"}},
		"child not made":          {time.Hour, false, []string{"REQUEST packet broadcast"}},
		"expired, child not made": {24 * time.Hour, false, []string{"DISCOVER packet broadcast", "REQUEST packet broadcast"}},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.container("web")
				r.stop(rec)
				time.Sleep(tc.stopped)
				r.server(func(s *server) { s.up = false })
				r.w.createErr = errors.New("not now")
				if tc.made {
					r.w.createErr = nil
				}
				r.startContainer(rec, "web2")
				r.halt()
				r.w.createErr = nil
				r.server(func(s *server) { s.up = true })
				r.w.messages()
				r.start()
				time.Sleep(2 * time.Minute)
				r.same(rec, "web2")
				r.wire(tc.want...)
			})
		})
	}
}

// A lease that expires while its container is stopped is got anew at its start,
// with the old address asked for.
func TestContainerOutlivesLease(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.stop(rec)
		time.Sleep(24 * time.Hour)
		r.want(EvKept, EvExpired)
		r.waiting()
		r.halt()
		r.start()
		time.Sleep(time.Minute)
		r.waiting()
		r.wire()
		r.want()
		r.startContainer(rec, "web2")
		r.same(rec, "web2")
		r.wire("DISCOVER packet broadcast", "REQUEST packet broadcast")
	})
}

// A removed container's lease is released at once, unless it has expired.
func TestContainerRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		end   func(r *rig, rec Record)
		after time.Duration
		want  []string
	}{
		"just killed": {func(r *rig, rec Record) { r.w.killSpace(rec.NS.Ino) }, 0, []string{"RELEASE parent unicast"}},
		"stopped":     {(*rig).stop, time.Hour, []string{"RELEASE parent unicast"}},
		"expired":     {(*rig).stop, 24 * time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.container("web")
				if err := r.k.ContainerRemoved(r.Context(), rec.ID, rec.Target.ContainerID); err == nil {
					r.Error("released while its process runs")
				}
				r.same(rec, "web")
				tc.end(r, rec)
				time.Sleep(tc.after)
				if err := r.k.ContainerRemoved(r.Context(), rec.ID, "another"); err != nil || len(r.k.Leases("", false)) != 1 {
					r.Errorf("another container's end: %v, leases %v", err, r.k.Leases("", false))
				}
				if err := r.k.ContainerRemoved(r.Context(), rec.ID, rec.Target.ContainerID); err != nil {
					r.Error(err)
				}
				r.wire(tc.want...)
				if vs := r.k.Leases("", false); len(vs) != 0 {
					r.Errorf("left: %+v", vs)
				}
			})
		})
	}
}

// A stopped container's lease is not released where its workload has gone on to
// another host: that one has the same MAC and client identifier.
func TestContainerWentElsewhere(t *testing.T) {
	for name, away := range map[string]bool{"here": false, "elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				o := r.options(ClusterPrefix+"web", r.w.addSpace("web"))
				o.Target = containerTarget("web")
				rec, err := r.attachTo(o)
				if err != nil {
					r.Fatal(err)
				}
				r.settle()
				r.stop(rec)
				r.w.messages()
				want := []string{"RELEASE parent unicast"}
				if away {
					r.w.holders[rec.Binding.Address.Addr()] = rec.Spec.MAC
					want = nil
				}
				if err := r.k.ContainerRemoved(r.Context(), rec.ID, rec.Target.ContainerID); err != nil {
					r.Error(err)
				}
				r.wire(want...)
				if vs := r.k.Leases("", false); len(vs) != 0 {
					r.Errorf("left: %+v", vs)
				}
			})
		})
	}
}

// Detach of a stopped container releases, or keeps the lease for an attach by
// hand only.
func TestDetachStoppedContainer(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.stop(rec)
		if _, err := r.k.Keep(r.Context(), rec.ID); err != nil {
			r.Fatal(err)
		}
		r.startContainer(rec, "web2")
		if v := r.one(); v.State != Kept || v.Waiting || len(r.k.Followed("", "")) != 0 {
			r.Errorf("after detach --keep-lease it is %s, waiting %v", v.State, v.Waiting)
		}
		r.wire()
		if _, err := r.k.Release(r.Context(), rec.ID, "detached"); err != nil {
			r.Fatal(err)
		}
		r.wire("RELEASE parent unicast")
	})
}

// An attach by hand takes the place of the start that is waited for; one that
// fails leaves the lease waiting.
func TestAttachByHandWhileWaiting(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.stop(rec)
		o := r.options("web", r.w.addSpace("web2"))
		o.Target = containerTarget("web")
		o.Target.PID = 2
		r.server(func(s *server) { s.up = false })
		o.Timeout = 5 * time.Second
		if _, err := r.attachTo(o); err == nil {
			r.Error("attached without a server")
		}
		r.waiting()
		r.server(func(s *server) { s.up = true })
		r.w.messages()
		if _, err := r.attachTo(o); err != nil {
			r.Fatal(err)
		}
		if err := r.k.ContainerStarted(r.Context(), rec.ID, o.Target, o.NS, nil); err != nil {
			r.Error(err)
		}
		time.Sleep(time.Second)
		r.same(rec, "web2")
		r.wire("REQUEST packet broadcast")
	})
}

// A start while the server is down is tried on; the container may end meanwhile.
func TestContainerStartsWithoutServer(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.stop(rec)
		time.Sleep(24 * time.Hour)
		r.server(func(s *server) { s.up = false })
		r.startContainer(rec, "web2")
		time.Sleep(10 * time.Minute)
		if v := r.one(); v.State.HasAddress() && r.onKid("web2/eth0") != "gone" && r.onKid("web2/eth0") != "" {
			r.Errorf("%s without a server, on the child %q", v.State, r.onKid("web2/eth0"))
		}
		r.stop(r.one().Record)
		r.k.ContainerStopped(rec.ID)
		time.Sleep(time.Minute) // a try that is under way comes to its end
		r.waiting()
		r.startContainer(rec, "web3")
		r.server(func(s *server) { s.up = true })
		time.Sleep(2 * time.Minute)
		r.same(rec, "web3")
	})
}

// Without a binding a lease waits as well.
func TestContainerStopsWithoutAddress(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		r.server(func(s *server) { s.up = false })
		time.Sleep(13 * time.Hour)
		r.stop(r.one().Record)
		time.Sleep(time.Second) // an exchange may be under way
		r.waiting()
		r.halt()
		r.start()
		time.Sleep(time.Second)
		r.waiting()
		r.server(func(s *server) { s.up = true })
		r.startContainer(rec, "web2")
		time.Sleep(time.Second)
		r.same(rec, "web2")
	})
}

// A new name of the container is the target's, not the identity's.
func TestContainerRenamed(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.container("web")
		if err := r.k.ContainerRenamed(r.Context(), rec.ID, rec.Target.ContainerID, "www"); err != nil {
			r.Fatal(err)
		}
		if v := r.one(); v.Target.Name != "docker:www" || v.Spec.Identity != "web" || v.State != Bound {
			r.Errorf("%s of %s is %s", v.Spec.Identity, v.Target.Name, v.State)
		}
		r.wire()
	})
}

// A parent made for the lease stays while its container is stopped, and goes
// with the lease.
func TestContainerKeepsItsParent(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.makeParents = true
		o := r.options("web", r.w.addSpace("web"))
		o.Spec.Parent, o.Target = "ens192.200", containerTarget("web")
		rec, err := r.attachTo(o)
		if err != nil {
			r.Fatal(err)
		}
		r.settle()
		r.stop(rec)
		if _, err := r.w.Parent("ens192.200"); err != nil {
			r.Errorf("while the container is stopped: %v", err)
		}
		r.w.messages()
		if err := r.k.ContainerRemoved(r.Context(), rec.ID, rec.Target.ContainerID); err != nil {
			r.Fatal(err)
		}
		r.wire("RELEASE parent unicast")
		if got := strings.Join(r.w.removed, " "); got != "ens192.200" {
			r.Errorf("parents removed: %q", got)
		}
	})
}
