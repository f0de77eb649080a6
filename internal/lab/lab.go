// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TB is what a lab needs of a test. Every *testing.T and *testing.B is one.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
}

// Lab is one LAN and what is on it, until its test ends. Its methods are safe
// for concurrent use where they don't fail; those that fail end the goroutine
// that called them, as testing.T's do.
type Lab struct {
	tb  TB
	id  string // prefix of every name
	dir string

	mu      sync.Mutex
	closers []func() // run backwards
	lans    []*LAN
	started []*Process
	names   map[string]int
}

var labs atomic.Int64

// New makes a lab that goes when the test ends. With -short it skips the test.
func New(tb TB) *Lab {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("lab: left out by -short: needs root and network namespaces")
	}
	l, err := open(tb)
	if err != nil {
		tb.Fatalf("lab: %v", err)
	}
	tb.Cleanup(l.close)
	l.LAN("lan")
	return l
}

func open(tb TB) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("make network namespaces: must be root")
	}
	if err := guard(); err != nil {
		return nil, err
	}
	l := &Lab{tb: tb, id: fmt.Sprintf("%s%d", ownPrefix(), labs.Add(1)), names: map[string]int{}}
	l.dir = filepath.Join(os.TempDir(), l.id)
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	return l, nil
}

// Dir is a directory of the lab, removed with it. Its path is short enough for
// sockets.
func (l *Lab) Dir() string { return l.dir }

// TB is the test that the lab belongs to.
func (l *Lab) TB() TB { return l.tb }

// Eventually waits until ok returns true, and ends the test when it hasn't
// after timeout. What says what is waited for.
func (l *Lab) Eventually(timeout time.Duration, what string, ok func() bool) {
	l.tb.Helper()
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			l.tb.Fatalf("lab: not within %v: %s", timeout, what)
		}
		time.Sleep(pause)
	}
}

// must ends the test when err is set.
func (l *Lab) must(err error, format string, args ...any) {
	if err != nil {
		l.tb.Helper()
		l.tb.Fatalf("lab: %s: %v", fmt.Sprintf(format, args...), err)
	}
}

// unique gives base, with a number when it was given before.
func (l *Lab) unique(base string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[base]++
	if n := l.names[base]; n > 1 {
		return fmt.Sprintf("%s%d", base, n)
	}
	return base
}

// onClose runs f when the lab goes, before everything that was there earlier.
func (l *Lab) onClose(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

func (l *Lab) close() {
	l.mu.Lock()
	closers := l.closers
	started := l.started
	l.mu.Unlock()
	if l.tb.Failed() {
		l.report(started)
	}
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
	// The sweep comes first: it kills what the processes have started, too, and
	// once they are dead nothing tells whose that is.
	if err := sweep(l.id + "-"); err != nil {
		l.tb.Errorf("lab: clean up: %v", err)
	}
	for _, p := range started {
		p.kill()
	}
	if err := removeDir(l.dir); err != nil {
		l.tb.Errorf("lab: clean up: %v", err)
	}
}

// report logs what the lab's processes said, for a test that failed.
func (l *Lab) report(started []*Process) {
	for _, p := range started {
		if p.quiet {
			continue
		}
		out := strings.TrimSpace(p.Output())
		if out == "" {
			out = "(no output)"
		}
		const most = 16 << 10
		if len(out) > most {
			out = "…" + out[len(out)-most:]
		}
		l.tb.Logf("lab: %s:\n%s", p, out)
	}
}

// Run makes a lab for a program, calls f with it and takes it down again. An
// error is f's, or that of the first of the lab's methods that failed; f's
// deferred calls run in both cases. Log may be nil.
func Run(ctx context.Context, log func(format string, args ...any), f func(*Lab) error) error {
	r := &runner{ctx: ctx, log: log}
	defer r.cleanup()
	l, err := open(r)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	r.Cleanup(l.close)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.LAN("lan")
		if err := f(l); err != nil {
			r.fail(err)
		}
	}()
	<-done
	r.cleanup()
	return r.err
}

// runner is the TB of a lab without a test.
type runner struct {
	ctx context.Context
	log func(string, ...any)

	mu       sync.Mutex
	err      error
	cleanups []func()
}

func (r *runner) Helper()                  {}
func (r *runner) Name() string             { return "run" }
func (r *runner) Context() context.Context { return r.ctx }

func (r *runner) Logf(format string, args ...any) {
	if r.log != nil {
		r.log(format, args...)
	}
}

func (r *runner) Errorf(format string, args ...any) { r.fail(fmt.Errorf(format, args...)) }

func (r *runner) Fatalf(format string, args ...any) {
	r.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

func (r *runner) Skipf(format string, args ...any) { r.Fatalf(format, args...) }

func (r *runner) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil
}

func (r *runner) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *runner) cleanup() {
	r.mu.Lock()
	cleanups := r.cleanups
	r.cleanups = nil
	r.mu.Unlock()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i]()
	}
}
