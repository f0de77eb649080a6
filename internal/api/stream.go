// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// reply is one line of attach's and probe's answer, and the body of any answer
// that is an error. One field is set.
type reply struct {
	Progress string       `json:"progress,omitempty"`
	Lease    *Lease       `json:"lease,omitempty"`
	Result   *ProbeResult `json:"result,omitempty"`
	Error    *Error       `json:"error,omitempty"`
}

// stream writes an answer line by line, each at once. It is safe for concurrent
// use, also after the handler it belongs to has returned.
type stream struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	rc      *http.ResponseController
	started bool
	err     error // the first that a write met; nothing is written after it

	quiet time.Time // no progress is sent before
	// late holds the newest progress until then, and its timer.
	late struct {
		what  string
		timer *time.Timer
	}
}

// progressAfter keeps what would be out of date before it is read off the wire:
// most calls have ended by then.
const progressAfter = 50 * time.Millisecond

var errClosed = errors.New("the answer is complete")

func newStream(w http.ResponseWriter, quiet time.Duration) *stream {
	return &stream{w: w, rc: http.NewResponseController(w), quiet: time.Now().Add(quiet)}
}

// start sends the head of the answer.
func (s *stream) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head(http.StatusOK)
	return s.flush()
}

// send writes one line.
func (s *stream) send(v any) error { return s.write(http.StatusOK, v) }

// progress is for a Service to call. Of what comes in the first moments only the
// newest is sent, once they are over.
func (s *stream) progress(what string) {
	if what == "" {
		return
	}
	s.mu.Lock()
	wait := time.Until(s.quiet)
	if wait > 0 {
		s.late.what = what
		if s.late.timer == nil {
			s.late.timer = time.AfterFunc(wait, s.sendLate)
		}
		s.mu.Unlock()
		return
	}
	s.late.what = ""
	s.mu.Unlock()
	s.send(reply{Progress: what}) //nolint:errcheck // the result that follows meets it again
}

func (s *stream) sendLate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if what := s.late.what; what != "" {
		s.line(http.StatusOK, reply{Progress: what}) //nolint:errcheck // as above
	}
}

// fail writes the error as the last line.
func (s *stream) fail(err error) {
	e := toError(err)
	if s.write(httpStatus(e.Code), reply{Error: e}) == nil {
		s.close()
	}
}

// close keeps later writes away from a response that is no longer there.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errClosed
	}
	if s.late.timer != nil {
		s.late.timer.Stop()
	}
}

func (s *stream) write(status int, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late.what = ""
	return s.line(status, v)
}

// line writes one. The lock is held.
func (s *stream) line(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.err != nil {
		return s.err
	}
	s.head(status)
	if _, s.err = s.w.Write(append(b, '\n')); s.err != nil {
		return s.err
	}
	return s.flush()
}

// head begins a write, and the answer with the first one.
func (s *stream) head(status int) {
	s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // the write says it
	if s.started {
		return
	}
	s.started = true
	s.w.Header().Set("Content-Type", "application/x-ndjson")
	s.w.WriteHeader(status)
}

func (s *stream) flush() error {
	if s.err == nil {
		s.err = s.rc.Flush()
	}
	return s.err
}

// toError finds the code of err, which may wrap an *Error.
func toError(err error) *Error {
	e := &Error{Code: CodeFailed, Message: err.Error()}
	var coded *Error
	if errors.As(err, &coded) {
		e.Code = coded.Code
	}
	return e
}

func httpStatus(c Code) int {
	switch c {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeConflict:
		return http.StatusConflict
	case CodeNoAnswer:
		return http.StatusGatewayTimeout
	case CodeDown:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
