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
	"slices"
	"strconv"
	"strings"
)

// attach leaves nothing behind for a client that did not get its answer.
func (s *Server) attach(out *stream, r *http.Request) error {
	var req AttachRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	lease, err := s.svc.Attach(r.Context(), req, out.progress)
	if err != nil {
		return calledOff(r.Context(), err, "attach "+req.Target)
	}
	if cause := context.Cause(r.Context()); cause != nil {
		s.undo(r.Context(), lease)
		return calledOff(r.Context(), cause, "attach "+req.Target)
	}
	if err := out.send(reply{Lease: &lease}); err != nil {
		s.undo(r.Context(), lease)
	}
	return nil
}

// undo releases a lease that nobody was told of.
func (s *Server) undo(ctx context.Context, l Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if _, err := s.svc.Release(ctx, l.ID); err != nil {
		s.log.Warn("failed to undo an attach whose caller is gone", "lease", l.ID, "identity", l.Identity, "err", err)
	}
}

// calledOff puts into words an error that came of the end of ctx.
func calledOff(ctx context.Context, err error, what string) error {
	cause := context.Cause(ctx)
	if cause == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, errStopping) {
		return err
	}
	if errors.Is(cause, errStopping) {
		return fmt.Errorf("%s was undone: %w", what, errStopping)
	}
	return fmt.Errorf("%s was called off and undone", what)
}

func (s *Server) detach(out *stream, r *http.Request) error {
	var req DetachRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	return answerLeases(out)(s.svc.Detach(r.Context(), req))
}

func (s *Server) leases(out *stream, r *http.Request) error {
	v, err := readQuery(r, "q", "all")
	if err != nil {
		return err
	}
	all := false
	if a := v.Get("all"); a != "" {
		if all, err = strconv.ParseBool(a); err != nil {
			return usage("all=%q: give 1 or 0", shorten(a))
		}
	}
	return answerLeases(out)(s.svc.Leases(r.Context(), v.Get("q"), all))
}

func (s *Server) renew(out *stream, r *http.Request) error {
	return s.byQuery(out, r, s.svc.Renew)
}

func (s *Server) release(out *stream, r *http.Request) error {
	return s.byQuery(out, r, s.svc.Release)
}

// byQuery serves the calls that take a query which may not be empty: nobody
// means all leases by leaving it out.
func (s *Server) byQuery(out *stream, r *http.Request, call func(context.Context, string) ([]Lease, error)) error {
	v, err := readQuery(r, "q")
	if err != nil {
		return err
	}
	if v.Get("q") == "" {
		return usage("no LEASE|TARGET: give a lease's id or identity, or a target")
	}
	return answerLeases(out)(call(r.Context(), v.Get("q")))
}

func (s *Server) hostLink(out *stream, r *http.Request) error {
	var req HostLinkRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	lease, err := s.svc.HostLink(r.Context(), req, out.progress)
	if err != nil {
		return calledOff(r.Context(), err, "host-link "+req.Parent)
	}
	return out.send(reply{Lease: &lease})
}

func (s *Server) probe(out *stream, r *http.Request) error {
	var req ProbeRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return err
	}
	res, err := s.svc.Probe(r.Context(), req, out.progress)
	if err != nil {
		return err
	}
	return out.send(reply{Result: &res})
}

func (s *Server) events(out *stream, r *http.Request) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return fmt.Errorf("events: %d readers already: end some of them", maxStreams)
	}
	err := s.svc.Events(r.Context(), out.start, func(e Event) error { return out.send(e) })
	if r.Context().Err() != nil {
		return nil
	}
	return err
}

func (s *Server) status(out *stream, r *http.Request) error {
	if _, err := readQuery(r); err != nil {
		return err
	}
	st, err := s.svc.Status(r.Context())
	if err != nil {
		return err
	}
	return out.send(st)
}

// answerLeases takes the two results of a call and sends them.
func answerLeases(out *stream) func([]Lease, error) error {
	return func(ls []Lease, err error) error {
		if err != nil {
			return err
		}
		if ls == nil {
			ls = []Lease{}
		}
		return out.send(ls)
	}
}

// readBody decodes one JSON object that holds nothing v has no field for.
func readBody(r *http.Request, v any) error {
	if err := onlyParams(r); err != nil {
		return err
	}
	return decode(http.MaxBytesReader(nil, r.Body, maxBody), v)
}

func decode(in io.Reader, v any) error {
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badBody(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return usage("the request's body goes on after its JSON object: send one object")
	}
	return nil
}

// otherVersion is the likely cause of a request that the keeper does not know:
// clients of its own version send none.
const otherVersion = "is the keeper of another version than who asks? see mvdhcp status"

func badBody(err error) error {
	var wrong *json.UnmarshalTypeError
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return usage("the request's body is too long: send at most %d bytes", big.Limit)
	case errors.Is(err, io.EOF):
		return usage("the request has no body: send a JSON object")
	case errors.As(err, &wrong) && wrong.Field != "":
		return usage("the request's field %q is a JSON %s: send what it takes", shorten(wrong.Field), shorten(wrong.Value))
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return usage("the request has a field %s that this call does not know: %s", shorten(field), otherVersion)
	}
	return usage("the request's body is not what this call takes: %s", shorten(err.Error()))
}

// readQuery returns the query of a call without a body.
func readQuery(r *http.Request, known ...string) (url.Values, error) {
	if r.ContentLength != 0 {
		return nil, usage("%s takes no body: send its parameters in the query", r.URL.Path)
	}
	if err := onlyParams(r, known...); err != nil {
		return nil, err
	}
	v := r.URL.Query()
	return v, ValidateQuery(v.Get("q"))
}

func onlyParams(r *http.Request, known ...string) error {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return usage("the query can't be read: %s", shorten(err.Error()))
	}
	for name, values := range v {
		if !slices.Contains(known, name) {
			return usage("the query has a parameter %q that this call does not know: %s", shorten(name), otherVersion)
		}
		if len(values) > 1 {
			return usage("the query has %q more than once", name)
		}
	}
	return nil
}
