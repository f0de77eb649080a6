// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// mover follows reserved leases into the containers they were taken for. The
// engine makes the interface in the host's namespace and moves it; from then on
// the kernel tells of it, and it is the container's once it is up with its
// address. A look through all namespaces finds those of which no event came.
type mover struct {
	p      *Plugin
	events chan provision.Event
	wake   chan struct{} // something new waits

	mu      sync.Mutex
	waiting map[string]guest // by lease: not moved in yet
	unnamed map[string]guest // by lease: moved in, the engine has not said whose it is
}

// guest is a lease on its way.
type guest struct {
	id    string
	mac   net.HardwareAddr
	since time.Time
}

// Waits of a mover.
const (
	scanFirst  = 500 * time.Millisecond // before the first look through all namespaces
	scanMost   = 5 * time.Second
	nameFirst  = 100 * time.Millisecond // before the engine is asked for the first time
	nameMost   = 5 * time.Second
	nameFor    = 10 * time.Minute // is how long it is asked, as long as it answers
	comeWithin = 30 * time.Second // a container that has not come by then may never come
)

func newMover(p *Plugin) *mover {
	return &mover{p: p, events: make(chan provision.Event, 1024), wake: make(chan struct{}, 1), waiting: map[string]guest{}, unnamed: map[string]guest{}}
}

// await has the mover look for the lease's interface.
func (m *mover) await(id string, mac net.HardwareAddr) {
	m.mu.Lock()
	m.waiting[id] = guest{id, mac, time.Now()}
	m.mu.Unlock()
	m.poke()
}

// drop has the mover look for the lease no more: the network driver follows its
// own.
func (m *mover) drop(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, id)
}

// waitFor are the leases whose interface may be the one with the MAC: several
// when they are on different parents.
func (m *mover) waitFor(mac net.HardwareAddr) (gs []guest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.waiting {
		if bytes.Equal(g.mac, mac) {
			gs = append(gs, g)
		}
	}
	return gs
}

// arrived has the mover name a lease that has moved in.
func (m *mover) arrived(id string, mac net.HardwareAddr) {
	m.mu.Lock()
	m.unnamed[id] = guest{id, mac, time.Now()}
	m.mu.Unlock()
	m.poke()
}

// observe takes an event of the kernel and waits for nothing.
func (m *mover) observe(ev provision.Event) {
	if ev.Kind != provision.ChildChanged || !ev.Up {
		return
	}
	if len(m.waitFor(ev.MAC)) == 0 {
		return
	}
	select {
	case m.events <- ev:
	default: // a look through all namespaces comes anyway
	}
}

func (m *mover) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends. What an earlier keeper left under way is taken up.
func (m *mover) run(ctx context.Context) {
	for _, v := range m.p.Keeper.PoolLeases("") {
		g := guest{v.ID, v.Spec.MAC, time.Now()}
		m.mu.Lock()
		switch {
		case v.Pool.Held():
		case v.State == lease.Kept && v.Pool.Endpoint != "":
		case v.State == lease.Kept:
			m.waiting[v.ID] = g
		case v.Target.ContainerID == "":
			m.unnamed[v.ID] = g
		}
		m.mu.Unlock()
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	settle := make(chan struct{}, 1)
	wg.Go(func() { m.settle(ctx, settle) })
	m.scan(ctx)
	m.nudge(settle)
	var look alarm
	look.soon(scanFirst)
	for {
		var timer <-chan time.Time // nil, and silent, while nothing waits
		if m.pending() {
			timer = look.c()
		}
		select {
		case <-ctx.Done():
			return
		case ev := <-m.events:
			m.follow(ctx, ev)
		case <-m.wake:
			look.soon(scanFirst)
		case <-timer:
			m.scan(ctx)
			look.later(scanMost)
		}
		m.nudge(settle)
	}
}

// alarm is a time that something is done at, again and again, each time after
// twice the wait.
type alarm struct {
	at   time.Time
	wait time.Duration
}

// soon has the alarm ring within wait.
func (a *alarm) soon(wait time.Duration) {
	a.wait = wait
	if at := time.Now().Add(wait); a.at.IsZero() || a.at.After(at) || a.at.Before(time.Now()) {
		a.at = at
	}
}

// later has it ring after twice the former wait, at most after most.
func (a *alarm) later(most time.Duration) {
	a.wait = min(2*a.wait, most)
	a.at = time.Now().Add(a.wait)
}

func (a *alarm) c() <-chan time.Time { return time.After(time.Until(a.at)) }

// nudge has settle look again.
func (m *mover) nudge(settle chan<- struct{}) {
	select {
	case settle <- struct{}{}:
	default:
	}
}

// pending drops those that need no looking for any more and reports whether
// others are left.
func (m *mover) pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.waiting {
		if v, ok := m.view(id); !ok || v.State != lease.Kept || v.Pool.Held() {
			delete(m.waiting, id)
		}
	}
	return len(m.waiting) > 0
}

// view is a lease of a pool.
func (m *mover) view(id string) (lease.View, bool) {
	v, ok := m.p.Keeper.Lease(id)
	return v, ok && v.Pool != nil
}

// follow takes the lease over that an event is about.
func (m *mover) follow(ctx context.Context, ev provision.Event) {
	gs := m.waitFor(ev.MAC)
	if len(gs) == 0 {
		return
	}
	ns, err := m.p.Kernel.NamespaceOf(ev.NSID)
	if err != nil {
		return // it has ended, or has no process yet
	}
	for _, g := range gs {
		m.moveIn(ctx, g, ns)
	}
}

// scan looks once through the host's namespaces, those of the newest processes
// first.
func (m *mover) scan(ctx context.Context) {
	if !m.pending() {
		return
	}
	all, err := provision.AllNamespaces()
	if err != nil {
		m.p.Log.Warn("namespaces can't be read", "error", err)
		return
	}
	for _, ns := range slices.Backward(all) {
		n, err := ns.Open()
		if err != nil {
			continue
		}
		up, err := m.p.Kernel.LinksUp(n)
		n.Close()
		if err != nil {
			continue
		}
		for _, c := range up {
			for _, g := range m.waitFor(c.MAC) {
				m.moveIn(ctx, g, ns)
			}
		}
	}
}

func (m *mover) moveIn(ctx context.Context, g guest, ns provision.Namespace) {
	err := m.p.Keeper.MoveIn(ctx, g.id, ns, lease.Target{Kind: lease.TargetDocker, Name: "docker:" + g.mac.String()})
	if errors.Is(err, provision.ErrGone) {
		return
	}
	if err != nil && ctx.Err() == nil {
		m.p.Log.Warn("lease not taken over whole", "lease", g.id, "netns", ns.Path, "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.view(g.id); ok && v.State == lease.Kept {
		return // tried again
	}
	delete(m.waiting, g.id)
	g.since = time.Now()
	m.unnamed[g.id] = g
}

// settle asks the engine, beside all else, whose the leases are that have moved
// in, and whether it knows those that have not.
func (m *mover) settle(ctx context.Context, nudged <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var ask alarm
	known := 0
	for {
		var timer <-chan time.Time
		n := m.open()
		if n > known {
			ask.soon(nameFirst)
		}
		if known = n; n > 0 {
			timer = ask.c()
		}
		select {
		case <-ctx.Done():
			return
		case <-nudged:
			continue
		case <-timer:
		}
		m.name(ctx, &wg)
		m.giveUp(ctx)
		ask.later(nameMost)
	}
}

// open counts the leases the engine is to be asked about, and drops those that
// need no asking any more.
func (m *mover) open() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, g := range m.unnamed {
		if v, ok := m.view(id); !ok || v.State == lease.Kept || time.Since(g.since) > nameFor {
			delete(m.unnamed, id)
		}
	}
	for _, g := range m.waiting {
		if time.Since(g.since) > comeWithin {
			n++
		}
	}
	return n + len(m.unnamed)
}

// name gives the leases that have moved in the names of their containers. The
// engine lists a container's MAC only once it has started, so the interface is
// set up whole by then.
func (m *mover) name(ctx context.Context, wg *sync.WaitGroup) {
	unnamed := map[string]lease.View{}
	m.mu.Lock()
	for id := range m.unnamed {
		if v, ok := m.view(id); ok {
			unnamed[id] = v
		}
	}
	m.mu.Unlock()
	if len(unnamed) == 0 {
		return
	}
	found, err := owners(ctx, unnamed)
	if err != nil {
		m.p.Log.Debug("containers not listed", "error", err)
		m.mu.Lock()
		for id, g := range m.unnamed {
			g.since = time.Now()
			m.unnamed[id] = g
		}
		m.mu.Unlock()
	}
	for id, o := range found {
		v, ok := m.view(id)
		if !ok {
			continue
		}
		m.mu.Lock()
		delete(m.unnamed, id)
		m.mu.Unlock()
		host := o.hostname
		if pl, err := decodePool(v.Pool.ID); err != nil || pl.NoHostname {
			host = ""
		}
		t := v.Target
		t.Name, t.ContainerID = "docker:"+o.name, o.id
		wg.Go(func() {
			if err := m.p.Keeper.Settled(ctx, id, t, o.network, host, o.fixedMAC); err != nil && ctx.Err() == nil {
				m.p.Log.Info("lease not settled whole", "lease", id, "container", o.name, "error", err)
			}
		})
	}
}

// giveUp releases the leases whose container has not come, unless the engine
// says that it holds them, or does not answer.
func (m *mover) giveUp(ctx context.Context) {
	m.mu.Lock()
	var late []guest
	for _, g := range m.waiting {
		if time.Since(g.since) > comeWithin {
			late = append(late, g)
		}
	}
	m.mu.Unlock()
	if len(late) == 0 {
		return
	}
	holds, err := endpoints(ctx)
	if err != nil {
		m.p.Log.Warn("leases wait for containers that have not come, and the engine does not say whether it holds them", "leases", len(late), "error", err)
		return
	}
	for _, g := range late {
		if holds[g.mac.String()] {
			continue
		}
		if _, err := m.p.Keeper.Release(ctx, g.id, "its container never came"); err != nil && ctx.Err() == nil {
			m.p.Log.Warn("lease without a container not released", "lease", g.id, "error", err)
		}
	}
}
