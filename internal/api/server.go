// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConns are served at once; more wait in the listener's queue.
	maxConns = 512
	// maxStreams bounds the readers of events, so that calls get through.
	maxStreams = 256
	// maxBody is more than any request needs.
	maxBody = 1 << 20
	// readTimeout is for the whole request, writeTimeout for one line of an
	// answer.
	readTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	// undoTimeout bounds what is done for a client that is gone, and how long
	// Serve waits for calls that were cut short.
	undoTimeout = 10 * time.Second
)

// errStopping ends the calls under way when the keeper stops.
var errStopping = errors.New("the keeper is stopping")

// Server serves a Service over HTTP. It is safe for concurrent use.
type Server struct {
	svc     Service
	log     *slog.Logger
	streams chan struct{} // a place for each reader of events
	quiet   time.Duration // progressAfter
}

// NewServer makes a server; Serve starts it.
func NewServer(svc Service, log *slog.Logger) *Server {
	return &Server{svc: svc, log: log, streams: make(chan struct{}, maxStreams), quiet: progressAfter}
}

// Serve answers on l until ctx ends; it closes l. Calls under way then have
// their contexts ended and are waited for, 10 s at most. It returns nil when it
// was ctx that ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(errStopping)
	srv := &http.Server{
		Handler:                      s.Handler(),
		ReadTimeout:                  readTimeout,
		MaxHeaderBytes:               16 << 10,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		DisableGeneralOptionsHandler: true,
	}
	srv.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	cut := context.AfterFunc(ctx, func() {
		defer close(ended)
		stop(errStopping)
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if err := srv.Shutdown(wait); err != nil {
			s.log.Warn("calls did not end in time", "err", err)
			srv.Close()
		}
	})
	err := srv.Serve(netutil.LimitListener(l, maxConns))
	if !cut() {
		<-ended
		return nil
	}
	srv.Close()
	return fmt.Errorf("failed to serve on %s: %w", l.Addr(), err)
}

// Handler is what Serve serves.
func (s *Server) Handler() http.Handler {
	calls := map[string]func(*stream, *http.Request) error{
		"POST /v1/attach":    s.attach,
		"POST /v1/detach":    s.detach,
		"GET /v1/leases":     s.leases,
		"POST /v1/renew":     s.renew,
		"POST /v1/release":   s.release,
		"POST /v1/host-link": s.hostLink,
		"POST /v1/probe":     s.probe,
		"GET /v1/events":     s.events,
		"GET /v1/status":     s.status,
	}
	return s.guard(func(out *stream, r *http.Request) error {
		call, ok := calls[r.Method+" "+r.URL.Path]
		if !ok {
			return usage("no call %s %s: %s", shorten(r.Method), shorten(r.URL.Path), otherVersion)
		}
		return call(out, r)
	})
}

// guard answers with the error that h returns or panics with.
func (s *Server) guard(h func(*stream, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := newStream(w, s.quiet)
		defer out.close()
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic while answering", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				out.fail(fmt.Errorf("%s: the keeper failed inside: its log says more", r.URL.Path))
			}
		}()
		if err := h(out, r); err != nil {
			s.log.Debug("call failed", "method", r.Method, "path", r.URL.Path, "err", err)
			out.fail(err)
		}
	})
}
