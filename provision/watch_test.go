// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// watch runs a Watcher on the host namespace until the test ends.
func watch(t *testing.T, h *testHost) <-chan Event {
	t.Helper()
	return watchWith(t, NewWatcherIn(slog.New(slog.DiscardHandler), h.ns), 1000)
}

func watchWith(t *testing.T, w *Watcher, room int) <-chan Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan Event, room), make(chan error, 1)
	go func() { done <- w.Run(ctx, func(e Event) { events <- e }) }()
	select {
	case <-w.Ready():
	case err := <-done:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready within 20 s")
	}
	t.Cleanup(func() {
		cancel()
		for {
			select {
			case <-events:
			case err := <-done:
				must(t, err)
				return
			}
		}
	})
	return events
}

// next is the next event that isn't of a change inside a child's namespace,
// which must come.
func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	for {
		if e := nextOfAll(t, events); e.Kind != ChildChanged {
			return e
		}
	}
}

func nextOfAll(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event within 20 s")
		panic("unreachable")
	}
}

func wantNext(t *testing.T, events <-chan Event, want ...Event) {
	t.Helper()
	for _, w := range want {
		if diff := cmp.Diff(w, next(t, events)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestWatchParent(t *testing.T) {
	h := newHost(t)
	nh, wire := handle(t, h.ns), handle(t, h.wire)
	p0, w0 := linkNamed(t, nh, "p0"), linkNamed(t, wire, "w0")
	eventually(t, "carrier", func() bool { p, err := h.Parent("p0"); return err == nil && p.Carrier })
	events := watch(t, h)
	is := func(kind EventKind, name string) Event {
		return Event{Kind: kind, Name: name, Index: h.parent.Index, NSID: -1}
	}

	must(t, wire.LinkSetDown(w0)) // the cable
	wantNext(t, events, is(ParentDown, "p0"))
	must(t, wire.LinkSetUp(w0))
	wantNext(t, events, is(ParentUp, "p0"))
	must(t, nh.LinkSetDown(p0)) // the administrator
	wantNext(t, events, is(ParentDown, "p0"))
	must(t, nh.LinkSetUp(p0))
	wantNext(t, events, is(ParentUp, "p0"))
	old := p0.Attrs().HardwareAddr
	must(t, nh.LinkSetMTU(p0, 1400))
	changed := is(ParentChanged, "p0")
	changed.MTU, changed.OldMTU, changed.MAC, changed.OldMAC = 1400, 1500, old, old
	wantNext(t, events, changed)
	must(t, nh.LinkSetHardwareAddr(p0, mac(77)))
	changed.OldMTU, changed.MAC = 1400, mac(77)
	wantNext(t, events, changed)
	must(t, nh.LinkSetAlias(p0, "x")) // nothing that counts
	must(t, nh.LinkSetDown(p0))
	wantNext(t, events, is(ParentDown, "p0"))
	must(t, nh.LinkSetName(p0, "lan"))
	renamed := is(ParentRenamed, "lan")
	renamed.OldName = "p0"
	wantNext(t, events, renamed)
	must(t, nh.LinkSetUp(p0))
	wantNext(t, events, is(ParentUp, "lan"))
	must(t, nh.LinkDel(p0))
	for {
		if e := next(t, events); e.Kind != ParentDown {
			if diff := cmp.Diff(is(ParentGone, "lan"), e); diff != "" {
				t.Error(diff)
			}
			break
		}
	}
	must(t, nh.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "p0"}})) // something by that name
	wantNext(t, events, Event{Kind: ParentAdded, Name: "p0", Index: linkNamed(t, nh, "p0").Attrs().Index, NSID: -1})
}

func TestWatchParentMoves(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	must(t, nh.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}))
	br := linkNamed(t, nh, "br")
	events := watch(t, h)
	must(t, nh.LinkSetMaster(linkNamed(t, nh, "p0"), br)) // joins and leaves a bridge: still there
	must(t, nh.LinkSetNoMaster(linkNamed(t, nh, "p0")))
	must(t, nh.LinkSetMTU(linkNamed(t, nh, "p0"), 1400))
	for {
		e := next(t, events)
		if e.Kind == ParentGone {
			t.Fatal("reported gone when it left a bridge")
		}
		if e.Kind == ParentChanged && e.Index == h.parent.Index {
			break
		}
	}
	must(t, nh.LinkSetNsFd(linkNamed(t, nh, "p0"), h.wire.FD()))
	for {
		e := next(t, events)
		if e.Index == br.Attrs().Index || e.Kind == ParentDown || e.Kind == ParentUp {
			continue
		}
		if diff := cmp.Diff(Event{Kind: ParentGone, Name: "p0", Index: h.parent.Index, NSID: -1}, e); diff != "" {
			t.Error(diff)
		}
		break
	}
	if names, _ := h.Names(h.ns); len(names) != 2 {
		t.Error("reported gone before it was:", names)
	}
}

func TestWatchChildGone(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	events := watch(t, h)
	nh := handle(t, ns)
	must(t, nh.LinkDel(linkNamed(t, nh, "eth0")))
	wantNext(t, events, Event{Kind: ChildGone, Name: "eth0", Index: c.Index, NSID: c.NSID})

	// One that is made while the Watcher runs, and moved away.
	ns, c = h.child(t, 2)
	nh = handle(t, ns)
	must(t, nh.LinkSetNsFd(linkNamed(t, nh, "eth0"), h.wire.FD()))
	wantNext(t, events, Event{Kind: ChildGone, Name: "eth0", Index: c.Index, NSID: c.NSID})

	// With the parent.
	_, c = h.child(t, 3)
	host := handle(t, h.ns)
	must(t, host.LinkDel(linkNamed(t, host, "p0")))
	var child, parent int
	for child == 0 || parent == 0 {
		switch e := next(t, events); {
		case e.Kind == ChildGone && e.NSID == c.NSID && e.Index == c.Index:
			child++
		case e.Kind == ParentGone && e.Index == h.parent.Index:
			parent++
		}
	}
}

// The namespace of a child dies: no descriptor of ours is in the way, and the
// id is reported once.
func TestWatchNamespaceGone(t *testing.T) {
	h := newHost(t)
	events := watch(t, h)
	for range 5 {
		name, remove := newNamed(t)
		ns, err := Open("/run/netns/" + name)
		must(t, err)
		c, err := h.CreateChild(context.Background(), ns, h.spec(1))
		must(t, err)
		must(t, h.Apply(ns, c, lan))
		id := ns.ID()
		ns.Close()
		start := time.Now()
		remove()
		wantNext(t, events, Event{Kind: NamespaceGone, NSID: c.NSID})
		t.Logf("reported %v after ip netns del", time.Since(start))
		if id.Alive() {
			t.Error("alive after its end")
		}
	}
}

// What a child in the host's own namespace loses is told, what other links there
// lose is not.
func TestWatchHostChild(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	eventually(t, "carrier", func() bool { p, err := h.Parent("p0"); return err == nil && p.Carrier })
	spec := h.spec(1)
	spec.Name = "mvh"
	c, err := h.CreateChild(t.Context(), h.ns, spec)
	must(t, err)
	must(t, h.Apply(h.ns, c, Config{Address: prefix("10.80.0.5/32"), Lifetime: time.Hour, Routes: []Route{{Dst: prefix("10.80.0.6/32")}}}))
	p0, mvh := linkNamed(t, nh, "p0"), linkNamed(t, nh, "mvh")
	route := &netlink.Route{LinkIndex: c.Index, Dst: mustAddr(t, "10.80.0.6/32").IPNet, Scope: netlink.SCOPE_LINK}
	events := watch(t, h)
	theirs := mustAddr(t, "198.51.100.1/24")
	lost := Event{Kind: ChildChanged, Index: c.Index, NSID: -1}
	for _, remove := range []func() error{
		func() error { return nh.RouteDel(route) },
		func() error { return nh.AddrDel(mvh, mustAddr(t, "10.80.0.5/32")) },
	} {
		must(t, nh.AddrAdd(p0, theirs))
		must(t, nh.AddrDel(p0, theirs))
		must(t, remove())
		if diff := cmp.Diff(lost, nextOfAll(t, events)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// Other namespaces' knowledge of each other is not ours.
func TestWatchForeignIDs(t *testing.T) {
	h := newHost(t)
	events := watch(t, h)
	ns, c := h.child(t, 1)
	third := newTestNS(t)
	must(t, handle(t, ns).SetNetNsIdByFd(third.FD(), 4711))
	third.Close() // ns sees 4711 end, the host has no id for it
	nh := handle(t, ns)
	eventually(t, "the third namespace ends", func() bool {
		ids := map[int]bool{}
		_ = inNS(ns, func(c *conn) error {
			all, err := c.namespaceIDs()
			for _, id := range all {
				ids[id] = true
			}
			return err
		})
		return !ids[4711]
	})
	must(t, nh.LinkDel(linkNamed(t, nh, "eth0")))
	wantNext(t, events, Event{Kind: ChildGone, Name: "eth0", Index: c.Index, NSID: c.NSID})
}

// A host namespace that has an id for itself: its links are still its own.
func TestWatchHostWithID(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	eventually(t, "carrier", func() bool { p, err := h.Parent("p0"); return err == nil && p.Carrier })
	events := watch(t, h)
	must(t, nh.SetNetNsIdByFd(h.ns.FD(), 8))
	must(t, nh.LinkSetDown(linkNamed(t, nh, "p0")))
	wantNext(t, events, Event{Kind: ParentDown, Name: "p0", Index: h.parent.Index, NSID: -1})
	second := watch(t, h)
	must(t, nh.LinkSetUp(linkNamed(t, nh, "p0")))
	up := Event{Kind: ParentUp, Name: "p0", Index: h.parent.Index, NSID: -1}
	wantNext(t, events, up)
	wantNext(t, second, up)
}

// Events are lost while emit blocks; Resync says so, and what was missed
// follows from reading all links again.
func TestWatchResync(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	eventually(t, "carrier", func() bool { p, err := h.Parent("p0"); return err == nil && p.Carrier })
	w := NewWatcherIn(slog.New(slog.DiscardHandler), h.ns)
	w.receiveBuffer = 64 << 10
	events := watchWith(t, w, 0)
	p0 := linkNamed(t, nh, "p0")
	for i := range 1000 { // the first blocks Run, the rest fill the buffer
		must(t, nh.LinkSetMTU(p0, 1300+i%100))
	}
	must(t, nh.LinkDel(p0))
	resync := false
	for {
		e := next(t, events)
		if e.Kind == Resync {
			resync = true
		}
		if e.Kind == ParentGone {
			if !resync || e.Name != "p0" {
				t.Errorf("Resync %v, then %+v", resync, e)
			}
			return
		}
	}
}

func TestHostLinks(t *testing.T) {
	var s hostLinks
	if e := s.remove(5); e != nil {
		t.Error("removing what isn't there:", e)
	}
	live := link{index: 5, name: "a", mtu: 1500, flags: 1 | 1<<16}
	is := func(kind EventKind, name string) Event { return Event{Kind: kind, Name: name, Index: 5, NSID: -1} }
	changed := func(was, mtu int) Event {
		return Event{Kind: ParentChanged, Name: "b", Index: 5, NSID: -1, OldMTU: was, MTU: mtu, MAC: net.HardwareAddr{}, OldMAC: net.HardwareAddr{}}
	}
	called := is(ParentRenamed, "b")
	called.OldName = "a"
	renamed := live
	renamed.name = "b"
	dead := renamed
	dead.flags, dead.mtu = 1, 1400
	for _, tt := range []struct {
		l    link
		want []Event
	}{
		{live, []Event{is(ParentAdded, "a"), is(ParentUp, "a")}},
		{live, nil},
		{renamed, []Event{called}},
		{dead, []Event{changed(1500, 1400), is(ParentDown, "b")}},
		{renamed, []Event{changed(1400, 1500), is(ParentUp, "b")}},
	} {
		if diff := cmp.Diff(tt.want, s.put(tt.l)); diff != "" {
			t.Error(diff)
		}
	}
	s.mark()
	if diff := cmp.Diff([]Event{is(ParentGone, "b")}, s.sweep()); diff != "" {
		t.Error(diff)
	}
	if s.sweep() != nil {
		t.Error("gone twice")
	}
}
