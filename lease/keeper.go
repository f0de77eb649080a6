// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mvdhcp/provision"
)

// Config is what a Keeper works with. All fields but Log and BootGrace are
// needed.
type Config struct {
	Host      Host
	Store     Store
	Clock     Clock
	MachineID string
	Log       *slog.Logger
	// BootGrace is how long after a boot a lease waits for a namespace of its
	// target's name to be set up anew before it is released. 0: one minute.
	BootGrace time.Duration
	// ParentUsed tells whether somebody else than a lease needs a parent that
	// this program made. Who does calls DropParent in the end. May be nil.
	ParentUsed func(parent string) bool
}

// Limits of what runs at once and of what is remembered.
const (
	maxJobs     = 256
	maxVerify   = 64
	maxEnded    = 1000
	endedFor    = 24 * time.Hour
	exchangeFor = 15 * time.Second // one try to get or verify an address
	extendFor   = 4 * time.Second  // one try to renew or rebind
	declineWait = 10 * time.Second // RFC 2131, 3.1.5
	maxBackoff  = time.Minute
)

// Keeper keeps the leases of one host. Its methods are safe for concurrent use.
type Keeper struct {
	host      Host
	store     Store
	clock     Clock
	machineID string
	log       *slog.Logger
	grace     time.Duration
	hub       *hub

	parentUsed func(parent string) bool

	mu     sync.Mutex
	leases map[string]*entry
	links  map[string]*entry // the host links of leases
	due    dueQueue
	ended  []Record // oldest first
	// parents are those that leases are on, and those that one waited for in vain.
	parents map[string]*parentState
	// changed are children that something happened to, looked at when changedAt
	// has come.
	changed   map[childKey]change
	changedAt time.Duration
	// leaving holds the parents to remove that still had children.
	leaving map[string]leaving
	// watches are the ARP listeners, by parent.
	watches map[string]*arpWatch
	jobs    int
	pacer   pacer

	wake   chan struct{}
	follow chan struct{} // see FollowedChanged
	verify chan struct{} // one token a background conflict check
	wg     sync.WaitGroup
	ctx    context.Context // ends with Run; jobs live in it
	cancel context.CancelFunc
	closed bool // guarded by mu: no new job may start
}

// entry is a lease at rest: the record and its place among the due times.
type entry struct {
	rec   Record
	bound time.Duration // BoundAt on the clock of this boot
	op    *op           // who owns the record now; nil: nobody
	due   time.Duration // when its next step is
	at    time.Duration // its moment in the heap: due, or look when that is sooner
	pos   int           // place in the heap, -1: none
	tries int           // unanswered in this state
	// What is looked at before the next step, at the moment look. suspect: the
	// kernel reported something. resumed: it was taken over from the store.
	// reroute: the addresses leased on the parent of a host link have changed.
	suspect, resumed, reroute bool
	look                      time.Duration
	// again: its parent came up while it was busy; verifyAt is its turn to be
	// verified since its parent came up.
	again    bool
	verifyAt time.Duration
	// repairs counts the repairs of the child, repairAt is when the next may be.
	repairs  int
	repairAt time.Duration
	// paced: what its owner sends is one of many, and takes turns with them.
	paced bool
	// mtuWas is the MTU that the parent had before it was raised; 0: it wasn't.
	mtuWas int
	// missing: the child is gone with its parent, or not made again since the
	// boot; until says how long that is waited for (0: for ever).
	missing bool
	until   time.Duration
	// routes are those that were put on a host link last.
	routes []provision.Route
	// stopVerify ends the conflict check that runs beside the lease, if one does.
	stopVerify context.CancelFunc
}

// op is the ownership of one entry.
type op struct {
	cancel context.CancelFunc
	done   chan struct{}
	host   Host // that the owner has entered the namespace with; nil: it has not
}

// New returns a Keeper with the leases of the store. Run must be called for
// anything to become of them.
func New(c Config) (*Keeper, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.BootGrace <= 0 {
		c.BootGrace = time.Minute
	}
	k := &Keeper{
		host: c.Host, store: c.Store, clock: c.Clock, machineID: c.MachineID, log: c.Log, grace: c.BootGrace,
		hub: newHub(c.Log), parentUsed: c.ParentUsed,
		leases: map[string]*entry{}, links: map[string]*entry{}, parents: map[string]*parentState{}, changed: map[childKey]change{},
		leaving: map[string]leaving{}, watches: map[string]*arpWatch{},
		wake: make(chan struct{}, 1), follow: make(chan struct{}, 1), verify: make(chan struct{}, maxVerify),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k, k.load()
}

// Run keeps the leases until ctx ends, and returns when every job has stopped.
// Addresses and leases stay in place.
func (k *Keeper) Run(ctx context.Context) error {
	alarm, err := k.clock.NewAlarm()
	if err != nil {
		return err
	}
	defer alarm.Close()
	defer func() {
		k.mu.Lock()
		k.closed = true
		k.mu.Unlock()
		k.cancel()
		k.wg.Wait()
	}()
	for {
		next, ok := k.startDue()
		if ok {
			if err := alarm.Set(next); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-alarm.C():
		case <-k.wake:
		}
	}
}

// startDue starts a job for every entry that is due, as far as the pool allows,
// and returns when the next one is.
func (k *Keeper) startDue() (next time.Duration, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	look := never
	if len(k.changed) > 0 {
		if look = k.changedAt; look <= k.clock.Now() {
			k.lookAtChanged()
			look = never
		}
	}
	for k.jobs < maxJobs {
		e, at, ok := k.due.next()
		if !ok {
			return look, look != never
		}
		if at > k.clock.Now() {
			return min(at, look), true
		}
		ctx, release := k.take(k.ctx, e)
		k.jobs++
		k.wg.Go(func() {
			k.work(ctx, e)
			release()
			k.mu.Lock()
			k.jobs--
			k.mu.Unlock()
			k.poke()
		})
	}
	return look, look != never // a job that ends pokes
}

// enter puts an entry among the leases. The lock is held.
func (k *Keeper) enter(e *entry) {
	k.leases[e.rec.ID] = e
	if delete(k.links, e.rec.ID); e.rec.Target.Kind == TargetHost {
		k.links[e.rec.ID] = e
	}
}

// leave takes an owned entry out of the leases, and sees to it that a parent
// goes that another lease left to it while it was ending itself. The lock is
// held.
func (k *Keeper) leave(e *entry) {
	k.due.drop(e)
	delete(k.leases, e.rec.ID)
	delete(k.links, e.rec.ID)
	parent := e.rec.Spec.Parent
	if _, known := k.leaving[parent]; e.rec.MadeParent && !known {
		k.leaving[parent] = leaving{}
	}
}

// take makes the caller the owner of a free entry. The lock is held.
func (k *Keeper) take(ctx context.Context, e *entry) (context.Context, func()) {
	k.due.drop(e)
	ctx, cancel := context.WithCancel(ctx)
	o := &op{cancel: cancel, done: make(chan struct{})}
	e.op = o
	return ctx, func() {
		k.mu.Lock()
		e.op = nil
		if k.leases[e.rec.ID] == e {
			if e.again {
				e.again = false
				if e.due = k.clock.Now(); e.rec.State.HasAddress() && !e.missing {
					e.rec.State = InitReboot
				}
			}
			k.schedule(e)
		}
		k.mu.Unlock()
		cancel()
		close(o.done)
		k.poke()
	}
}

// schedule puts a free entry in its place among the due times. The lock is held.
func (k *Keeper) schedule(e *entry) {
	at := e.due
	if e.suspect || e.reroute {
		at = min(at, e.look)
	}
	k.due.set(e, at)
}

// lookBy has an entry looked at no later than at; what for is set after it.
func (e *entry) lookBy(at time.Duration) {
	if !e.suspect && !e.reroute || at < e.look {
		e.look = at
	}
}

// own waits for the entry and takes it; what is under way there is cancelled
// when preempt is set. It fails when the lease has ended meanwhile.
func (k *Keeper) own(ctx context.Context, e *entry, preempt bool) (context.Context, func(), error) {
	for {
		k.mu.Lock()
		if k.closed {
			k.mu.Unlock()
			return nil, nil, errors.New("the keeper is stopping")
		}
		id := e.rec.ID
		if k.leases[id] != e {
			k.mu.Unlock()
			return nil, nil, fmt.Errorf("lease %s %w", id, errEnded)
		}
		if e.op == nil {
			jctx, release := k.take(ctx, e)
			k.wg.Add(1)
			k.mu.Unlock()
			stop := context.AfterFunc(k.ctx, func() { e.interrupt(k) })
			return jctx, func() { stop(); release(); k.wg.Done() }, nil
		}
		o := e.op
		k.mu.Unlock()
		if preempt {
			o.cancel()
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("lease %s is busy: %w", id, ctx.Err())
		}
	}
}

// at is the Host for an owner's calls in the entry's namespace.
func (k *Keeper) at(e *entry) Host {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.op != nil && e.op.host != nil {
		return e.op.host
	}
	return k.host
}

// interrupt cancels what the owner is doing.
func (e *entry) interrupt(k *Keeper) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.op != nil {
		e.op.cancel()
	}
}

// poke makes Run look at the heap again.
func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// update changes the record of an entry the caller owns. It does not store it.
func (k *Keeper) update(e *entry, f func(r *Record)) Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&e.rec)
	return e.rec
}

// save stores the record of an entry the caller owns. A store that fails is
// logged: the lease goes on, and the next save tries again.
func (k *Keeper) save(e *entry) {
	k.logUnstored(e, k.store.Put(k.record(e)))
}

func (k *Keeper) logUnstored(e *entry, err error) {
	if err != nil {
		k.log.Error("lease not stored", "lease", e.rec.ID, "error", err)
	}
}

func (k *Keeper) record(e *entry) Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return e.rec
}

func (k *Keeper) event(kind EventKind, r Record, format string, args ...any) {
	k.hub.emit(Event{Time: k.clock.Wall(), Kind: kind, Parent: r.Spec.Parent, Record: r, Message: fmt.Sprintf(format, args...)})
	if r.Target.Kind != TargetHost {
		k.relink(r.Spec.Parent)
	}
	if r.followed() || r.Pool != nil {
		k.followSoon()
	}
}

// moment is now, as it is stored.
func (k *Keeper) moment(now time.Duration) Moment {
	return Moment{BootID: k.clock.BootID(), Boot: now, Wall: k.clock.Wall().Add(now - k.clock.Now())}
}
