// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// rig is a keeper on a simulated host, with one parent.
type rig struct {
	*testing.T
	w      *world
	store  *memStore
	k      *Keeper
	events <-chan Event
	halt   func()
}

const parent = "ens192.100"

// sim runs a test in a bubble of simulated time, and checks at its end that
// nothing happened that never may.
func sim(t *testing.T, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, w: newWorld(), store: newMemStore()}
		r.w.addParent(parent)
		r.start()
		defer func() {
			r.halt()
			time.Sleep(time.Minute) // messages under way arrive
			r.w.mu.Lock()
			defer r.w.mu.Unlock()
			for _, b := range r.w.broken {
				t.Error(b)
			}
			if n := len(r.w.conns) + len(r.w.arps) + len(r.w.heard); n > 0 {
				t.Errorf("%d sockets left open", n)
			}
		}()
		f(r)
	})
}

// start starts a keeper on the rig's store, as after a restart.
func (r *rig) start() {
	r.Helper()
	k, err := New(Config{Host: r.w, Store: r.store, Clock: r.w.clock, MachineID: "m", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Fatal(err)
	}
	r.k = k
	events, unsubscribe := k.Subscribe()
	r.events = events
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	r.halt = func() {
		cancel()
		if err := <-done; err != nil {
			r.Errorf("Run: %v", err)
		}
		unsubscribe()
		done <- nil // halt may be called again
	}
}

// options is an attach of an identity to a namespace.
func (r *rig) options(identity string, ns provision.Namespace) AttachOptions {
	return AttachOptions{
		Spec: Spec{
			Identity: identity, Parent: parent, Ifname: "eth0", Mode: provision.Bridge, Routes: RoutesAll, Conflict: dhcpclient.ConflictFast,
		},
		Target: Target{Kind: TargetNetNS, Name: "netns:" + identity}, NS: ns, Timeout: 30 * time.Second,
	}
}

func (r *rig) attachTo(o AttachOptions) (Record, error) {
	return r.k.Attach(context.Background(), o, func(string) {})
}

// attach attaches an identity to a namespace of its own.
func (r *rig) attach(identity string) Record {
	r.Helper()
	rec, err := r.attachTo(r.options(identity, r.w.addSpace(identity)))
	if err != nil {
		r.Fatalf("attach %s: %v", identity, err)
	}
	return rec
}

// settle lets time go by until nothing of the attach goes on.
func (r *rig) settle() {
	time.Sleep(40 * time.Second)
	synctest.Wait()
}

// one returns the only lease.
func (r *rig) one() View {
	r.Helper()
	vs := r.k.Leases("", false)
	if len(vs) != 1 {
		r.Fatalf("%d leases: %+v", len(vs), vs)
	}
	return vs[0]
}

// got returns the events since the last call.
func (r *rig) got() (evs []Event) {
	synctest.Wait()
	for {
		select {
		case e := <-r.events:
			evs = append(evs, e)
		default:
			return evs
		}
	}
}

func kindsOf(evs []Event) (ks []EventKind) {
	for _, e := range evs {
		ks = append(ks, e.Kind)
	}
	return ks
}

// want checks the kinds of the events since the last look.
func (r *rig) want(kinds ...EventKind) []Event {
	r.Helper()
	evs := r.got()
	if !slices.Equal(kindsOf(evs), kinds) {
		r.Errorf("events %v, want %v", kindsOf(evs), kinds)
	}
	return evs
}

// wire checks the messages sent since the last look.
func (r *rig) wire(want ...string) {
	r.Helper()
	synctest.Wait()
	if got := r.w.messages(); !slices.Equal(got, want) {
		r.Errorf("on the wire %q, want %q", got, want)
	}
}

// onKid returns what the kernel has on a child: its address, "" for none, or
// "gone".
func (r *rig) onKid(name string) string {
	synctest.Wait()
	k, ok := r.w.kids()[name]
	if !ok {
		return "gone"
	}
	if p := k.has(r.w.clock.Now()); p.IsValid() {
		return p.String()
	}
	return ""
}

// server changes the server.
func (r *rig) server(f func(s *server)) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	f(&r.w.srv)
}

// goroutines counts those of the bubble of simulated time. runtime.NumGoroutine
// is more than there are while the runtime's own work is under way.
func goroutines() int {
	synctest.Wait()
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), ", synctest bubble ")
}

func name(i int) string { return fmt.Sprintf("c%03d", i) }
