// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// call is one request.
type call struct {
	method, path string
	query        url.Values
	body         any // nil: none
	// grace is how long the answer is awaited after the context's end.
	grace time.Duration
}

// answer is the response to a call, read value by value.
type answer struct {
	c     *Client
	ctx   context.Context
	what  call
	conn  *net.UnixConn
	stop  func() bool
	body  io.ReadCloser
	lines *json.Decoder
}

// open sends a call and reads the head of its answer. The end of ctx closes the
// writing half of the connection, which the keeper takes for calling it off.
func (c *Client) open(ctx context.Context, what call) (*answer, error) {
	req, err := c.request(what)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	a := &answer{c: c, ctx: ctx, what: what, conn: conn}
	a.stop = context.AfterFunc(ctx, func() {
		conn.CloseWrite()                                //nolint:errcheck // reading ends all the same
		conn.SetReadDeadline(time.Now().Add(what.grace)) //nolint:errcheck // as above
	})
	if err := a.exchange(req); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *answer) exchange(req *http.Request) error {
	if err := req.Write(a.conn); err != nil {
		return a.broken(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(a.conn), req)
	if err != nil {
		return a.broken(err)
	}
	a.body = resp.Body
	if resp.StatusCode != http.StatusOK {
		return a.c.failed(resp, a.what.path)
	}
	a.lines = json.NewDecoder(resp.Body)
	return nil
}

// next reads the next value.
func (a *answer) next(v any) error {
	if err := a.lines.Decode(v); err != nil {
		return a.broken(err)
	}
	return nil
}

// close is all that is needed to be rid of the answer, read or not: the
// connection carries no other.
func (a *answer) close() {
	a.stop()
	a.conn.Close()
}

// broken says why an answer did not come in whole.
func (a *answer) broken(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case a.ctx.Err() != nil && a.what.grace > 0:
		return fmt.Errorf("the keeper at %s was told to stop but has not said that it did: see mvdhcp leases: %w", a.c.socket, context.Cause(a.ctx))
	case a.ctx.Err() != nil:
		return fmt.Errorf("gave up waiting for the keeper at %s: %w", a.c.socket, context.Cause(a.ctx))
	case errors.As(err, &syntax), errors.As(err, &kind):
		return a.c.garbled(a.what.path)
	}
	return &Error{Code: CodeDown, Message: fmt.Sprintf("the keeper at %s went away before it had answered: see its log, and mvdhcp status", a.c.socket)}
}

func (c *Client) request(what call) (*http.Request, error) {
	var body io.Reader
	if what.body != nil {
		b, err := json.Marshal(what.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: "mvdhcp", Path: what.path, RawQuery: what.query.Encode()}
	req, err := http.NewRequest(what.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Close = true
	return req, nil
}

// dialError is a keeper that can't be reached: an *Error and what met it.
type dialError struct {
	shown  *Error
	cause  error
	absent bool // no file, or nobody listens on it
}

func (e *dialError) Error() string   { return e.shown.Message }
func (e *dialError) Unwrap() []error { return []error{e.shown, e.cause} }

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := dialQueued(ctx, c.socket)
	if err == nil {
		return conn.(*net.UnixConn), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("gave up reaching the keeper at %s: %w", c.socket, context.Cause(ctx))
	}
	e := &dialError{cause: err, absent: errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)}
	why := err
	var op *net.OpError
	if errors.As(err, &op) {
		why = op.Err
	}
	if len(c.socket) > maxSocketPath {
		e.shown = &Error{CodeDown, fmt.Sprintf("keeper not reachable at %s: %s", c.socket, longPath(c.socket))}
		return nil, e
	}
	if errors.Is(err, fs.ErrPermission) {
		e.shown = &Error{CodeFailed, fmt.Sprintf("no permission to talk to the keeper at %s: run this as root (sudo mvdhcp …)", c.socket)}
		return nil, e
	}
	e.shown = &Error{CodeDown, fmt.Sprintf("keeper not reachable at %s: %v; start it with `mvdhcp serve` or `systemctl start mvdhcp`", c.socket, why)}
	return nil, e
}

// dialQueued waits while the listener's queue is full: connect(2) on a
// non-blocking unix socket fails with EAGAIN then.
func dialQueued(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for patience := 500; ; patience-- {
		conn, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, unix.EAGAIN) || patience == 0 {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
