// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Follower keeps leases with the containers they were attached to, through
// every stop and start, until the container is removed. It follows the events
// of each engine that has such a container, and compares all of them with the
// engine whenever it could have missed some.
type Follower struct {
	Keeper Followed
	// Place finds where a container runs.
	Place func(host string, c Container) (Place, error)
	Log   *slog.Logger

	timeout time.Duration // of one answer; 0: engineTimeout
}

// Followed is what a follower needs of the keeper.
type Followed interface {
	Followed(host, container string) []lease.Record
	FollowedHosts() map[string]bool
	FollowedChanged() <-chan struct{}
	ContainerStarted(ctx context.Context, id string, t lease.Target, ns provision.Namespace, resolv *provision.ResolvFile) error
	ContainerStopped(id string)
	ContainerRenamed(ctx context.Context, id, container, name string) error
	ContainerRemoved(ctx context.Context, id, container string) error
}

// Place is where a container runs: what an attach to it needs.
type Place struct {
	Target lease.Target
	NS     provision.Namespace
	Resolv func() (provision.ResolvFile, error)
}

// Times of the follower.
const (
	retryFirst  = 250 * time.Millisecond
	retryMost   = 5 * time.Second
	sessionGood = 10 * time.Second // one that lasted this long starts the back-off anew
	resyncEvery = 5 * time.Minute
)

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := map[string]context.CancelFunc{}
	for {
		want := f.Keeper.FollowedHosts()
		for host := range want {
			if running[host] == nil {
				hctx, stop := context.WithCancel(ctx)
				running[host] = stop
				wg.Go(func() { f.follow(hctx, host) })
			}
		}
		for host, stop := range running {
			if !want[host] {
				stop()
				delete(running, host)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.Keeper.FollowedChanged():
		}
	}
}

// follow has one session with the engine after the other until ctx ends.
func (f *Follower) follow(ctx context.Context, host string) {
	log := f.Log.With("engine", host)
	if host == "" {
		log = f.Log.With("engine", "default")
	}
	told := false
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		began := time.Now()
		err := f.session(ctx, host, func() {
			log.Info("following the engine's containers")
			told = false
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > sessionGood {
			wait = retryFirst
		}
		level := slog.LevelDebug
		if !told {
			told, level = true, slog.LevelWarn
		}
		log.Log(ctx, level, "engine not reachable: what its containers do is taken up once it is", "error", err)
		if !pause(ctx, wait) {
			return
		}
	}
}

// session follows the engine until it stops answering. Its containers are
// compared with the leases at the start, and from time to time.
func (f *Follower) session(ctx context.Context, host string, ready func()) (err error) {
	e, err := newEngineClient(host)
	if err != nil {
		return err
	}
	defer e.close()
	if f.timeout > 0 {
		e.timeout = f.timeout
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l := &looks{ctx: ctx, look: func(id string) error { return f.look(ctx, e, host, id) }, log: f.Log, state: map[string]bool{}, slots: make(chan struct{}, 8)}
	defer l.wg.Wait()
	defer cancel(nil)
	err = e.watch(ctx, func() {
		ready()
		l.wg.Go(func() {
			for {
				if err := f.resync(ctx, e, host, l); err != nil {
					cancel(err)
					return
				}
				if !pause(ctx, resyncEvery) {
					return
				}
			}
		})
	}, func(m message) { f.event(host, l, m) })
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// event takes one event. It never waits: an engine drops events for readers
// that are slow.
func (f *Follower) event(host string, l *looks, m message) {
	if m.Type != ofContainer {
		return
	}
	leases := f.Keeper.Followed(host, m.Actor.ID)
	if len(leases) == 0 {
		return
	}
	if m.Action == died {
		for _, r := range leases {
			f.Keeper.ContainerStopped(r.ID)
		}
	}
	l.add(m.Actor.ID) // also after an end: a look may be under way that saw it run
}

// looks runs look for containers that something is new about: one at a time for
// a container, again when more is new meanwhile, and until it succeeds.
type looks struct {
	ctx   context.Context
	look  func(id string) error
	log   *slog.Logger
	slots chan struct{} // one for each question to the engine

	mu    sync.Mutex
	state map[string]bool // containers under way; true: again
	wg    sync.WaitGroup
}

func (l *looks) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := l.state[id]; busy {
		l.state[id] = true
		return
	}
	l.state[id] = false
	l.wg.Go(func() { l.run(id) })
}

func (l *looks) run(id string) {
	for wait := retryFirst; ; {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		err := l.look(id)
		<-l.slots
		l.mu.Lock()
		again := l.state[id]
		if err == nil && !again {
			delete(l.state, id)
			l.mu.Unlock()
			return
		}
		l.state[id] = false
		l.mu.Unlock()
		if err == nil {
			continue
		}
		level := slog.LevelDebug
		if wait < retryMost && 2*wait >= retryMost { // once
			level = slog.LevelWarn
		}
		l.log.Log(l.ctx, level, "container can't be followed yet", "container", id, "error", err)
		if !pause(l.ctx, wait) {
			return
		}
		wait = min(2*wait, retryMost)
	}
}

// pause reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
