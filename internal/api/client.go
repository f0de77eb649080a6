// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Client is the keeper behind a socket. Each call has a connection of its own;
// a Client is safe for concurrent use and needs no closing.
//
// A keeper that can't be reached is an *Error of CodeDown; NotRunning tells
// whether that is because none listens. When the context of a call that changes
// something ends, the keeper is told and its answer awaited for up to 10 s
// more, so that the caller learns what became of it. A keeper that does not say
// within 30 s how it is, or what leases there are, is an *Error of CodeDown too:
// it hangs.
type Client struct {
	socket   string
	patience time.Duration
}

var _ Service = (*Client)(nil)

// NewClient does not connect yet.
func NewClient(socket string) *Client { return &Client{socket, patience} }

// patience is far more than reading what the keeper has in memory takes.
const patience = 30 * time.Second

// NotRunning reports whether err says that no keeper listens on the socket.
func NotRunning(err error) bool {
	var d *dialError
	return errors.As(err, &d) && d.absent
}

// Attach is Service.Attach.
func (c *Client) Attach(ctx context.Context, req AttachRequest, progress func(string)) (Lease, error) {
	r, err := c.stream(ctx, "/v1/attach", req, progress)
	if err != nil {
		return Lease{}, err
	}
	if r.Lease == nil {
		return Lease{}, c.garbled("/v1/attach")
	}
	return *r.Lease, nil
}

// HostLink is Service.HostLink.
func (c *Client) HostLink(ctx context.Context, req HostLinkRequest, progress func(string)) (Lease, error) {
	r, err := c.stream(ctx, "/v1/host-link", req, progress)
	if err != nil {
		return Lease{}, err
	}
	if r.Lease == nil {
		return Lease{}, c.garbled("/v1/host-link")
	}
	return *r.Lease, nil
}

// Detach is Service.Detach.
func (c *Client) Detach(ctx context.Context, req DetachRequest) ([]Lease, error) {
	return fetch[[]Lease](ctx, c, call{method: http.MethodPost, path: "/v1/detach", body: req, grace: undoTimeout})
}

// Leases is Service.Leases.
func (c *Client) Leases(ctx context.Context, query string, all bool) ([]Lease, error) {
	v := url.Values{}
	if query != "" {
		v.Set("q", query)
	}
	if all {
		v.Set("all", "1")
	}
	ctx, cancel := c.soon(ctx)
	defer cancel()
	return fetch[[]Lease](ctx, c, call{method: http.MethodGet, path: "/v1/leases", query: v})
}

// Renew is Service.Renew.
func (c *Client) Renew(ctx context.Context, query string) ([]Lease, error) {
	return fetch[[]Lease](ctx, c, call{method: http.MethodPost, path: "/v1/renew", query: url.Values{"q": {query}}, grace: undoTimeout})
}

// Release is Service.Release.
func (c *Client) Release(ctx context.Context, query string) ([]Lease, error) {
	return fetch[[]Lease](ctx, c, call{method: http.MethodPost, path: "/v1/release", query: url.Values{"q": {query}}, grace: undoTimeout})
}

// Probe is Service.Probe.
func (c *Client) Probe(ctx context.Context, req ProbeRequest, progress func(string)) (ProbeResult, error) {
	r, err := c.stream(ctx, "/v1/probe", req, progress)
	if err != nil {
		return ProbeResult{}, err
	}
	if r.Result == nil {
		return ProbeResult{}, c.garbled("/v1/probe")
	}
	return *r.Result, nil
}

// Events is Service.Events. Its error is nil when ctx ended it.
func (c *Client) Events(ctx context.Context, ready func() error, emit func(Event) error) error {
	a, err := c.open(ctx, call{method: http.MethodGet, path: "/v1/events"})
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer a.close()
	if err := ready(); err != nil {
		return err
	}
	for {
		var line struct {
			Event
			Error *Error `json:"error"`
		}
		if err := a.next(&line); err != nil {
			return unlessEnded(ctx, err)
		}
		if line.Error != nil {
			return line.Error
		}
		if err := emit(line.Event); err != nil {
			return err
		}
	}
}

// Status is Service.Status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := c.soon(ctx)
	defer cancel()
	return fetch[Status](ctx, c, call{method: http.MethodGet, path: "/v1/status"})
}

// soon is a context for a call that a living keeper answers at once.
func (c *Client) soon(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.patience, &Error{CodeDown, fmt.Sprintf("it has not answered within %v: see its log, and restart it", c.patience)})
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stream makes a call that reports progress and returns its last line.
func (c *Client) stream(ctx context.Context, path string, body any, progress func(string)) (reply, error) {
	a, err := c.open(ctx, call{method: http.MethodPost, path: path, body: body, grace: undoTimeout})
	if err != nil {
		return reply{}, err
	}
	defer a.close()
	for {
		var r reply
		if err := a.next(&r); err != nil {
			return reply{}, err
		}
		switch {
		case r.Error != nil:
			return reply{}, r.Error
		case r.Progress == "":
			return r, nil
		case progress != nil:
			progress(r.Progress)
		}
	}
}

// fetch makes a call that is answered with one T.
func fetch[T any](ctx context.Context, c *Client, what call) (T, error) {
	var v T
	a, err := c.open(ctx, what)
	if err != nil {
		return v, err
	}
	defer a.close()
	err = a.next(&v)
	return v, err
}

func (c *Client) garbled(path string) error {
	return fmt.Errorf("the keeper at %s answered %s with something else: is it of another version?", c.socket, path)
}

// failed reads the answer of a call that did not succeed.
func (c *Client) failed(resp *http.Response, path string) error {
	var r reply
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&r); err != nil || r.Error == nil {
		return fmt.Errorf("the keeper at %s answered %s with %s", c.socket, path, resp.Status)
	}
	return r.Error
}
