// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// fakeEngine answers as an engine with containers that a test moves.
type fakeEngine struct {
	t      *testing.T
	host   string
	server *httptest.Server

	mu         sync.Mutex
	containers map[string]*fakeContainer
	streams    map[chan string]bool
	// answer replaces an answer when it returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

type fakeContainer struct {
	name string
	pid  int
}

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	f := &fakeEngine{t: t, containers: map[string]*fakeContainer{}, streams: map[chan string]bool{}}
	path := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f.host = "unix://" + path
	f.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	f.server.Start()
	t.Cleanup(func() { f.server.CloseClientConnections(); f.server.Close() })
	return f
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	id, inspected := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/json"), "/containers/")
	switch {
	case r.URL.Path == "/events":
		f.stream(w, r)
	case r.URL.Path == "/containers/json":
		list := []any{}
		f.mu.Lock()
		for id, c := range f.containers {
			state := "exited"
			if c.pid != 0 {
				state = "running"
			}
			list = append(list, map[string]any{"Id": id, "Names": []string{"/db/" + c.name, "/" + c.name}, "State": state})
		}
		f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(list)
	case inspected:
		f.mu.Lock()
		c := f.containers[id]
		f.mu.Unlock()
		if c == nil {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such container: %s"}`, id)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"Id": id, "Name": "/" + c.name, "State": map[string]any{"Running": c.pid != 0, "Pid": c.pid}})
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeEngine) stream(w http.ResponseWriter, r *http.Request) {
	c := make(chan string, 16)
	f.mu.Lock()
	f.streams[c] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, c)
	}()
	w.(http.Flusher).Flush()
	for {
		select {
		case s := <-c:
			if s == "" {
				return
			}
			fmt.Fprintln(w, s)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// set changes the engine, and tells it as an event when action is set.
func (f *fakeEngine) set(id string, c *fakeContainer, action string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers[id] = c; c == nil {
		delete(f.containers, id)
	}
	if action != "" {
		f.send(fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":%q}}`, action, id))
	}
}

// send sends a line to every stream; "" ends them. The lock is held.
func (f *fakeEngine) send(line string) {
	for c := range f.streams {
		c <- line
	}
}

func (f *fakeEngine) streaming() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.streams) > 0
}

func (f *fakeEngine) answers(a func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
}

// fakeLeases is a keeper with leases that go where they are told to.
type fakeLeases struct {
	mu      sync.Mutex
	leases  map[string]*lease.Record
	changed chan struct{}
	stopped int
}

func newFakeLeases(rs ...lease.Record) *fakeLeases {
	f := &fakeLeases{leases: map[string]*lease.Record{}, changed: make(chan struct{}, 1)}
	for _, r := range rs {
		f.leases[r.ID] = &r
	}
	return f
}

func (f *fakeLeases) Followed(host, container string) (rs []lease.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.leases {
		if r.Target.DockerHost == host && (container == "" || r.Target.ContainerID == container) {
			rs = append(rs, *r)
		}
	}
	return rs
}

func (f *fakeLeases) FollowedHosts() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	hosts := map[string]bool{}
	for _, r := range f.leases {
		hosts[r.Target.DockerHost] = true
	}
	return hosts
}

func (f *fakeLeases) FollowedChanged() <-chan struct{} { return f.changed }

func (f *fakeLeases) ContainerStarted(_ context.Context, id string, t lease.Target, ns provision.Namespace, _ *provision.ResolvFile) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.leases[id]; r != nil {
		r.State, r.Target.PID, r.NS = lease.Bound, t.PID, ns
	}
	return nil
}

func (f *fakeLeases) ContainerStopped(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped++
	if r := f.leases[id]; r != nil {
		r.State = lease.Kept
	}
}

func (f *fakeLeases) ContainerRenamed(_ context.Context, id, _, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases[id].Target.Name = "docker:" + name
	return nil
}

func (f *fakeLeases) ContainerRemoved(_ context.Context, id, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.leases, id)
	return nil
}

// is tells a lease as "state pid name", "" when it is gone.
func (f *fakeLeases) is(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.leases[id]
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s %d %s", r.State, r.Target.PID, r.Target.Name)
}

// follow runs a follower until the test ends.
func follow(t *testing.T, leases *fakeLeases) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f := &Follower{Keeper: leases, timeout: time.Second, Log: slog.New(slog.DiscardHandler), Place: func(host string, c Container) (Place, error) {
		return Place{Target: lease.Target{Kind: lease.TargetDocker, ContainerID: c.ID, DockerHost: host, PID: c.PID}}, nil
	}}
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func leaseOn(host, id string, pid int) lease.Record {
	r := lease.Record{ID: id, State: lease.Bound, Target: lease.Target{Kind: lease.TargetDocker, Name: "docker:" + id, ContainerID: id, DockerHost: host, PID: pid}}
	r.NS.Path = "/nonexistent"
	return r
}

// eventually waits for what must come to pass.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (f *fakeLeases) becomes(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("lease %s is %q", id, want), func() bool { return f.is(id) == want })
}

// Leases go with their containers as the engine tells.
func TestFollow(t *testing.T) {
	e := newFakeEngine(t)
	e.set("web", &fakeContainer{"web", 10}, "")
	leases := newFakeLeases(leaseOn(e.host, "web", 10))
	follow(t, leases)
	eventually(t, "the engine is followed", e.streaming)
	e.set("web", &fakeContainer{"web", 0}, "die")
	leases.becomes(t, "web", "kept 10 docker:web")
	e.set("web", &fakeContainer{"web", 11}, "start")
	leases.becomes(t, "web", "bound 11 docker:web")
	e.set("web", &fakeContainer{"www", 11}, "rename")
	leases.becomes(t, "web", "bound 11 docker:www")
	e.set("other", &fakeContainer{"other", 12}, "start")
	e.set("web", nil, "destroy")
	leases.becomes(t, "web", "")
}

// What happened while the engine was not followed is made up for.
func TestFollowCatchesUp(t *testing.T) {
	e := newFakeEngine(t)
	e.set("started", &fakeContainer{"started", 20}, "")
	e.set("stopped", &fakeContainer{"stopped", 0}, "")
	e.set("renamed", &fakeContainer{"www", 22}, "")
	leases := newFakeLeases(leaseOn(e.host, "started", 1), leaseOn(e.host, "stopped", 2), leaseOn(e.host, "renamed", 22), leaseOn(e.host, "removed", 4))
	follow(t, leases)
	want := map[string]string{"started": "bound 20 docker:started", "stopped": "kept 2 docker:stopped", "renamed": "bound 22 docker:www", "removed": ""}
	for id, w := range want {
		leases.becomes(t, id, w)
	}
	eventually(t, "the engine is followed", e.streaming)
	e.set("started", &fakeContainer{"started", 30}, "")
	e.mu.Lock()
	e.send("") // the streams end, as with the engine
	e.mu.Unlock()
	e.set("stopped", nil, "")
	leases.becomes(t, "stopped", "")
}

// An engine that doesn't answer, or answers anything, ends no lease.
func TestFollowBadEngine(t *testing.T) {
	big := strings.Repeat("a", 64<<10)
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"no such page":   func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true },
		"internal error": func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true },
		"list is no list": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/events" {
				return false
			}
			fmt.Fprint(w, `{"web":1}`)
			return true
		},
		"another's container": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "web/json") {
				return false
			}
			fmt.Fprint(w, `{"Id":"other","State":{"Running":true,"Pid":1}}`)
			return true
		},
		"404 without a word": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "web/json") {
				return false
			}
			w.WriteHeader(404)
			return true
		},
		"list without end": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/events" {
				return false
			}
			fmt.Fprint(w, `[{"Id":"`)
			for n := 0; n < 2*maxAnswer; n += len(big) {
				if _, err := fmt.Fprint(w, big); err != nil {
					break
				}
			}
			return true
		},
		"event without end": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/events" {
				return false
			}
			for n := 0; n < 2*maxEvent; n += len(big) {
				if _, err := fmt.Fprint(w, big); err != nil {
					break
				}
			}
			return true
		},
		"event is no JSON": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/events" {
				fmt.Fprintln(w, "{")
				return true
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFakeEngine(t)
			e.set("web", &fakeContainer{"web", 1}, "")
			var mu sync.Mutex
			asked := 0
			e.answers(func(w http.ResponseWriter, r *http.Request) bool {
				did := answer(w, r)
				if did {
					mu.Lock()
					asked++
					mu.Unlock()
				}
				return did
			})
			leases := newFakeLeases(leaseOn(e.host, "web", 1))
			follow(t, leases)
			eventually(t, "the engine was asked again", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return asked > 1
			})
			if leases.is("web") == "" {
				t.Fatal("the lease was released")
			}
			e.set("web", &fakeContainer{"web", 2}, "")
			e.answers(nil)
			leases.becomes(t, "web", "bound 2 docker:web")
		})
	}
}

// A follower of an engine that accepts and never answers ends with its context,
// and follows the engine once it answers.
func TestFollowSilentEngine(t *testing.T) {
	for _, silent := range []string{"/events", "/containers/json", "/containers/web/json"} {
		t.Run(silent, func(t *testing.T) {
			t.Parallel()
			e := newFakeEngine(t)
			e.set("web", &fakeContainer{"web", 2}, "")
			asked := make(chan struct{}, 100)
			e.answers(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != silent {
					return false
				}
				asked <- struct{}{}
				<-r.Context().Done()
				return true
			})
			leases := newFakeLeases(leaseOn(e.host, "web", 1))
			follow(t, leases)
			<-asked
			if got := leases.is("web"); got != "bound 1 docker:web" {
				t.Errorf("the lease became %q", got)
			}
			e.answers(nil)
			leases.becomes(t, "web", "bound 2 docker:web")
		})
	}
}

// An engine is followed as long as there are leases of its containers.
func TestFollowOnlyWhereNeeded(t *testing.T) {
	e := newFakeEngine(t)
	leases := newFakeLeases()
	follow(t, leases)
	leases.mu.Lock()
	r := leaseOn(e.host, "web", 1)
	leases.leases["web"] = &r
	leases.mu.Unlock()
	e.set("web", &fakeContainer{"web", 2}, "")
	if e.streaming() {
		t.Error("followed without a lease")
	}
	leases.changed <- struct{}{}
	leases.becomes(t, "web", "bound 2 docker:web")
	_ = leases.ContainerRemoved(t.Context(), "web", "web")
	leases.changed <- struct{}{}
	eventually(t, "the engine is left alone", func() bool { return !e.streaming() })
}
