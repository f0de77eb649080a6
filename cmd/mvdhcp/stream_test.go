// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mvdhcp/internal/api"
)

// streaming runs a command that goes on, and returns its output line by line
// what ends it, and what waits for it to end.
func streaming(t *testing.T, args ...string) (next func() string, end, wait func() (status int, stderr string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var stderr strings.Builder
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"mvdhcp"}, args...), in, &stderr)
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	next = func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no more output: %v, %s", lines.Err(), stderr.String())
		}
		return lines.Text()
	}
	wait = func() (int, string) {
		io.Copy(io.Discard, out) //nolint:errcheck // a pipe's end
		return <-status, stderr.String()
	}
	end = func() (int, string) {
		cancel()
		return wait()
	}
	t.Cleanup(cancel)
	return next, end, wait
}

// emitter sends events until the test ends, so that none has to be timed.
func emitter(t *testing.T, k *keeperOf, e api.Event) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				k.mu.Lock()
				for _, c := range k.readers {
					select {
					case c <- e:
					default:
					}
				}
				k.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func TestEventsStream(t *testing.T) {
	k := &keeperOf{}
	socket := serveKeeper(t, k)
	e := api.Event{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kind: "bound", Identity: "web", Address: "10.0.0.57/24"}
	emitter(t, k, e)
	next, end, _ := streaming(t, on(socket, "events")...)
	for range 2 {
		if got := next(); got != "2026-03-01 12:00:00 bound       web 10.0.0.57/24" {
			t.Errorf("got %q", got)
		}
	}
	if status, stderr := end(); status != 0 || stderr != "" {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	next, end, _ = streaming(t, on(socket, "events", "--json")...)
	var got api.Event
	if err := json.Unmarshal([]byte(next()), &got); err != nil || got.Kind != "bound" || !got.Time.Equal(e.Time) {
		t.Errorf("%+v, %v", got, err)
	}
	end()
}

func TestEventsEndWithTheKeeper(t *testing.T) {
	k := &keeperOf{}
	socket := filepath.Join(t.TempDir(), "s.sock")
	stop := keeperOn(t, k, socket)
	emitter(t, k, api.Event{Kind: "bound"})
	next, _, wait := streaming(t, on(socket, "events")...)
	next()
	stop()
	if status, stderr := wait(); status != 5 || !strings.Contains(stderr, "went away") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestWatchPrintsChanges(t *testing.T) {
	k := &keeperOf{}
	socket := filepath.Join(t.TempDir(), "s.sock")
	stop := keeperOn(t, k, socket)
	all := someLeases(time.Now())
	k.leases = all[:1]
	emitter(t, k, api.Event{Kind: "renewed"})
	next, end, _ := streaming(t, on(socket, "leases", "--watch")...)
	for _, want := range []string{"IDENTITY", "web "} {
		if got := next(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q…", got, want)
		}
	}
	k.set(all[:2], api.Event{})
	if got := next(); !strings.HasPrefix(got, "db ") {
		t.Errorf("a new lease: %q", got)
	}
	renewing, same := all[1], all[0]
	renewing.State = "renewing"
	same.ExpiresAt.Time, same.RenewAt.Time = same.ExpiresAt.Add(3), same.RenewAt.Add(-3) // read from another clock
	k.set([]api.Lease{same, renewing}, api.Event{})
	if got := next(); !strings.HasPrefix(got, "db ") || !strings.Contains(got, "renewing") {
		t.Errorf("a changed lease: %q", got)
	}
	k.set(all[1:2], api.Event{})
	got := []string{next(), next()} // db is bound again, web is gone
	if !strings.HasPrefix(got[0], "db ") || !strings.HasPrefix(got[1], "web ") || !strings.Contains(got[1], " ended ") {
		t.Errorf("a lease that is gone: %q", got)
	}
	stop()
	k2 := &keeperOf{leases: all[2:3]}
	keeperOn(t, k2, socket)
	got = []string{next(), next()}
	if !strings.HasPrefix(got[0], "a?name ") || !strings.HasPrefix(got[1], "db ") {
		t.Errorf("after another keeper took over: %q", got)
	}
	if status, stderr := end(); status != 0 || strings.Count(stderr, "trying on") != 1 {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestWatchPrintsJSONLines(t *testing.T) {
	k := &keeperOf{leases: someLeases(time.Now())[:1]}
	socket := serveKeeper(t, k)
	next, end, _ := streaming(t, on(socket, "leases", "--watch", "--json")...)
	var l api.Lease
	if err := json.Unmarshal([]byte(next()), &l); err != nil || l.Identity != "web" {
		t.Errorf("%+v, %v", l, err)
	}
	end()
}
