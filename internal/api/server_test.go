// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// raw sends bytes and returns all that comes back.
func raw(t *testing.T, socket, request string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, request) //nolint:errcheck // the answer tells
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		t.Fatal(err)
	}
	return string(b)
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

func TestServerRefusesHostileRequests(t *testing.T) {
	s := serve(t, &fake{
		leases: func(context.Context, string, bool) ([]Lease, error) { return nil, nil },
		status: func(context.Context) (Status, error) { return Status{}, nil },
	})
	attach := func(body string) string { return post("/v1/attach", body) }
	tests := []struct{ name, request, want string }{
		{"no body", attach(""), "no body"},
		{"half an object", attach(`{"target":"a"`), "not what this call takes"},
		{"null", attach(`null`), "no TARGET"},
		{"a list", attach(`[]`), "not what this call takes"},
		{"two objects", attach(`{"target":"a","parent":"b"}{}`), "goes on"},
		{"an unknown field", attach(`{"target":"a","parent":"b","nme":1}`), `\"nme\"`},
		{"a field of another type", attach(`{"target":"a","mtu":"big"}`), `\"mtu\" is a JSON string`},
		{"an overflow", attach(`{"target":"a","mtu":99999999999999999999}`), `\"mtu\"`},
		{"a deep nest", attach(`{"target":` + strings.Repeat("[", 200000)), "not what this call takes"},
		{"a long body", attach(`{"target":"` + strings.Repeat("a", 2<<20) + `"}`), "too long"},
		{"a long chunked body", "POST /v1/attach HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat(" ", 0x200000) + "\r\n0\r\n\r\n", "too long"},
		{"an invalid request", attach(`{"target":"a","parent":"b.4095"}`), "1 to 4094"},
		{"an invalid detach", post("/v1/detach", `{}`), "no TARGET"},
		{"an invalid probe", post("/v1/probe", `{"parent":"/"}`), "slash"},
		{"a query to attach", post("/v1/attach?x=1", `{}`), `\"x\"`},
		{"renew of nothing", post("/v1/renew", ""), "no LEASE"},
		{"release of nothing", post("/v1/release?q=", ""), "no LEASE"},
		{"release with a body", post("/v1/release?q=a", "{}"), "takes no body"},
		{"release of two", post("/v1/release?q=a&q=b", ""), "more than once"},
		{"an unknown parameter", get("/v1/leases?al=1"), `\"al\"`},
		{"a bad boolean", get("/v1/leases?all=maybe"), "1 or 0"},
		{"a bad escape", get("/v1/leases?q=%zz"), "can't be read"},
		{"a query with an escape sequence", get("/v1/leases?q=%1b"), "printed"},
		{"an unknown call", get("/v1/nothing"), "no call GET /v1/nothing: is the keeper of another version"},
		{"the wrong method", get("/v1/attach"), "no call GET /v1/attach"},
		{"a folder above", get("/v1/../../etc/passwd"), "no call"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, s.socket, tt.request)
			if !strings.Contains(got, tt.want) || !strings.Contains(got, `"code":"usage"`) || !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("want 400 with %q, got %.500q", tt.want, got)
			}
		})
	}
	for _, junk := range []string{"\x00\x01\x02\r\n\r\n", "GET\r\n\r\n", "GET /v1/status HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 1<<16) + "\r\n"} {
		if got := raw(t, s.socket, junk); !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("%.20q: got %.200q", junk, got)
		}
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
}

// Of the progress in the first moments the newest is sent when they are over,
// and none when the answer comes before that.
func TestProgressWaits(t *testing.T) {
	answer := make(chan struct{})
	attach := func(_ context.Context, _ AttachRequest, progress func(string)) (Lease, error) {
		progress("first")
		progress("second")
		<-answer
		return Lease{ID: "1"}, nil
	}
	s := serve(t, &fake{attach: attach, quiet: 20 * time.Millisecond})
	var got []string
	if _, err := s.Attach(t.Context(), AttachRequest{Target: "a", Parent: "up0"}, func(what string) {
		got = append(got, what)
		close(answer)
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"second"}, got); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	s = serve(t, &fake{attach: attach, quiet: time.Hour})
	if _, err := s.Attach(t.Context(), AttachRequest{Target: "a", Parent: "up0"}, func(what string) {
		t.Errorf("progress %q", what)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAttachOnTheWire(t *testing.T) {
	s := serve(t, &fake{attach: func(_ context.Context, r AttachRequest, progress func(string)) (Lease, error) {
		progress("DISCOVER sent")
		progress("")
		progress("REQUEST sent")
		if r.Parent == "bad0" {
			return Lease{}, fmt.Errorf("on the way: %w", &Error{CodeConflict, "in use"})
		}
		return Lease{ID: "1"}, nil
	}})
	for parent, last := range map[string]string{"up0": `{"lease":{"id":"1",`, "bad0": `{"error":{"code":"conflict","message":"on the way: in use"}}`} {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, post("/v1/attach", `{"target":"a","parent":"`+parent+`"}`)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if diff := cmp.Diff([]string{`{"progress":"DISCOVER sent"}`, `{"progress":"REQUEST sent"}`}, lines[:len(lines)-1]); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(lines[len(lines)-1], last) {
			t.Errorf("last line %s, want %s…", lines[len(lines)-1], last)
		}
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	s := serve(t, &fake{
		leases: func(context.Context, string, bool) ([]Lease, error) { panic("boom one") },
		attach: func(_ context.Context, _ AttachRequest, progress func(string)) (Lease, error) {
			progress("half way")
			panic("boom two")
		},
		status: func(context.Context) (Status, error) { return Status{PID: 1}, nil },
	})
	_, err := s.Leases(t.Context(), "", false)
	if e := new(Error); !errors.As(err, &e) || e.Code != CodeFailed || strings.Contains(e.Message, "boom") {
		t.Errorf("leases: %v", err)
	}
	_, err = s.Attach(t.Context(), AttachRequest{Target: "a", Parent: "b"}, nil)
	if e := new(Error); !errors.As(err, &e) || e.Code != CodeFailed {
		t.Errorf("attach: %v", err)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("the server is gone: %v", err)
	}
	for _, want := range []string{"boom one", "boom two", "server_test.go"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, s.log)
		}
	}
}

func TestHundredAttachesAtOnce(t *testing.T) {
	const n = 100
	var all sync.WaitGroup
	all.Add(n)
	s := serve(t, &fake{attach: func(_ context.Context, r AttachRequest, _ func(string)) (Lease, error) {
		all.Done()
		all.Wait() // nobody ends before all have come
		return Lease{ID: r.Target}, nil
	}})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			target := fmt.Sprintf("c%d", i)
			l, err := s.Attach(t.Context(), AttachRequest{Target: target, Parent: "up0"}, nil)
			if err != nil || l.ID != target {
				t.Errorf("%s: %q, %v", target, l.ID, err)
			}
		})
	}
	wg.Wait()
}

func TestReadersOfEventsAreBounded(t *testing.T) {
	s := serve(t, &fake{
		events: func(ctx context.Context, _ func(Event) error) error { <-ctx.Done(); return nil },
		status: func(context.Context) (Status, error) { return Status{}, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	started := make(chan struct{})
	for range maxStreams {
		wg.Go(func() {
			err := s.Events(ctx, func() error { started <- struct{}{}; return nil }, func(Event) error { return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range maxStreams {
		<-started
	}
	if err := s.Events(t.Context(), quiet, func(Event) error { return nil }); err == nil || !strings.Contains(err.Error(), "256 readers") {
		t.Errorf("one more: %v", err)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("readers keep calls away: %v", err)
	}
	cancel()
	wg.Wait()
}

func TestServeEnds(t *testing.T) {
	begun := make(chan struct{})
	s := serve(t, &fake{attach: func(ctx context.Context, _ AttachRequest, _ func(string)) (Lease, error) {
		close(begun)
		<-ctx.Done()
		return Lease{}, fmt.Errorf("waiting for an offer: %w", ctx.Err())
	}})
	result := make(chan error)
	go func() {
		_, err := s.Attach(t.Context(), AttachRequest{Target: "a", Parent: "b"}, nil)
		result <- err
	}()
	<-begun
	go s.stop()
	if err := <-result; err == nil || err.Error() != "attach a was undone: the keeper is stopping" {
		t.Errorf("attach: %v", err)
	}
	s.stop()
	if s.err != nil {
		t.Errorf("Serve: %v", s.err)
	}
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// pipes is a listener whose connections live in memory, so that they can be
// waited for in a bubble.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.ended) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func TestSlowClientsAreLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
		stuck := make(chan error, 1)
		s := serveOn(t, &fake{events: func(ctx context.Context, emit func(Event) error) error {
			for {
				if err := emit(Event{Kind: "bound"}); err != nil {
					stuck <- err
					return err
				}
			}
		}}, p, "")
		for name, begin := range map[string]string{"silent": "", "in its head": "GET /v1/st", "in its body": "POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"} {
			here, there := net.Pipe()
			p.conns <- there
			if _, err := io.WriteString(here, begin); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(here); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			here.Close()
		}
		here, there := net.Pipe()
		p.conns <- there
		if _, err := io.WriteString(here, get("/v1/events")); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReader(here), nil); err != nil {
			t.Fatal(err)
		}
		if err := <-stuck; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a reader that does not read: %v", err)
		}
		here.Close()
		s.stop()
	})
}
