// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fake is a Service of functions; one that is nil fails.
type fake struct {
	quiet   time.Duration // before the first progress is sent
	attach  func(context.Context, AttachRequest, func(string)) (Lease, error)
	detach  func(context.Context, DetachRequest) ([]Lease, error)
	leases  func(context.Context, string, bool) ([]Lease, error)
	renew   func(context.Context, string) ([]Lease, error)
	release func(context.Context, string) ([]Lease, error)
	host    func(context.Context, HostLinkRequest, func(string)) (Lease, error)
	probe   func(context.Context, ProbeRequest, func(string)) (ProbeResult, error)
	events  func(context.Context, func(Event) error) error
	status  func(context.Context) (Status, error)
}

var errUnset = errors.New("not part of this test")

func (f *fake) Attach(ctx context.Context, r AttachRequest, p func(string)) (Lease, error) {
	if f.attach == nil {
		return Lease{}, errUnset
	}
	return f.attach(ctx, r, p)
}

func (f *fake) HostLink(ctx context.Context, r HostLinkRequest, p func(string)) (Lease, error) {
	if f.host == nil {
		return Lease{}, errUnset
	}
	return f.host(ctx, r, p)
}

func (f *fake) Detach(ctx context.Context, r DetachRequest) ([]Lease, error) {
	if f.detach == nil {
		return nil, errUnset
	}
	return f.detach(ctx, r)
}

func (f *fake) Leases(ctx context.Context, q string, all bool) ([]Lease, error) {
	if f.leases == nil {
		return nil, errUnset
	}
	return f.leases(ctx, q, all)
}

func (f *fake) Renew(ctx context.Context, q string) ([]Lease, error) {
	if f.renew == nil {
		return nil, errUnset
	}
	return f.renew(ctx, q)
}

func (f *fake) Release(ctx context.Context, q string) ([]Lease, error) {
	if f.release == nil {
		return nil, errUnset
	}
	return f.release(ctx, q)
}

func (f *fake) Probe(ctx context.Context, r ProbeRequest, p func(string)) (ProbeResult, error) {
	if f.probe == nil {
		return ProbeResult{}, errUnset
	}
	return f.probe(ctx, r, p)
}

func (f *fake) Events(ctx context.Context, ready func() error, emit func(Event) error) error {
	if f.events == nil {
		return errUnset
	}
	if err := ready(); err != nil {
		return err
	}
	return f.events(ctx, emit)
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	if f.status == nil {
		return Status{}, errUnset
	}
	return f.status(ctx)
}

// served is a Server on a socket of its own.
type served struct {
	*Client
	log  *logBuffer
	stop context.CancelFunc // ends Serve, and waits for it
	err  error              // what Serve returned, once stop has
}

func serve(t *testing.T, f *fake) *served {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, f, l, path)
}

func serveOn(t *testing.T, f *fake, l net.Listener, path string) *served {
	s := &served{Client: NewClient(path), log: &logBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		srv := NewServer(f, slog.New(slog.NewTextHandler(s.log, nil)))
		srv.quiet = f.quiet
		s.err = srv.Serve(ctx, l)
	}()
	s.stop = func() { cancel(); <-ended }
	t.Cleanup(s.stop)
	return s
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func quiet() error { return nil }
