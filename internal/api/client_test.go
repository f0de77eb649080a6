// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCallsArriveWhole(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	lease := Lease{ID: "7f", Identity: "web", State: "bound", Address: "10.0.0.5/24", Routes: []Route{{"10.1.0.0/16", "10.0.0.9"}}, DNS: []string{"10.0.0.53"}, LeaseSeconds: 4294967295, BoundAt: Time{at}}
	attach := AttachRequest{Target: "netns:a", Parent: "up0.7", Ifname: "eth1", Mode: "vepa", Identity: "web", MAC: "02:00:00:00:00:01", ClientID: "0x0102", NoHostname: true, RequestIP: "10.0.0.5", VendorClass: "v", UserClass: "u", Metric: 3, Routes: "none", DNS: true, MTU: 1400, ConflictCheck: "off", AllowServers: []string{"10.0.0.1"}, DenyServers: []string{"10.0.0.2"}, Timeout: 4 * time.Second, DockerHost: "unix:///d"}
	detach := DetachRequest{Target: "pid:1", Ifname: "eth1", KeepLease: true, DockerHost: "x"}
	probe := ProbeRequest{Parent: "up0", Window: time.Second, VendorClass: "v", ClientID: "duid", MAC: "02:00:00:00:00:01"}
	result := ProbeResult{Parent: "up0", Offers: []ProbeOffer{{Server: "10.0.0.1", DNS: []string{"10.0.0.53"}, Differs: []string{"router"}}}}
	status := Status{Version: "v1", PID: 7, Leases: map[string]int{"bound": 2}, Parents: []ParentStatus{{Name: "up0", Up: true}}}
	event := Event{Time: at, Kind: "changed", Lease: "7f", Old: map[string]string{"mtu": "1500"}}
	seen := map[string]any{}
	s := serve(t, &fake{
		attach: func(_ context.Context, r AttachRequest, p func(string)) (Lease, error) {
			p("one")
			p("two")
			seen["attach"] = r
			return lease, nil
		},
		detach: func(_ context.Context, r DetachRequest) ([]Lease, error) {
			seen["detach"] = r
			return []Lease{lease}, nil
		},
		leases: func(_ context.Context, q string, all bool) ([]Lease, error) {
			seen["leases"] = []any{q, all}
			return nil, nil
		},
		renew:   func(_ context.Context, q string) ([]Lease, error) { seen["renew"] = q; return []Lease{lease}, nil },
		release: func(_ context.Context, q string) ([]Lease, error) { seen["release"] = q; return []Lease{lease}, nil },
		probe: func(_ context.Context, r ProbeRequest, p func(string)) (ProbeResult, error) {
			p("three")
			seen["probe"] = r
			return result, nil
		},
		events: func(_ context.Context, emit func(Event) error) error { return errors.Join(emit(event), emit(event)) },
		status: func(context.Context) (Status, error) { return status, nil },
	})
	var said []string
	say := func(what string) { said = append(said, what) }
	var events []Event
	got := map[string]any{}
	keep := func(name string, v any, err error) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got[name] = v
	}
	ctx := t.Context()
	l, err := s.Attach(ctx, attach, say)
	keep("attach", l, err)
	ls, err := s.Detach(ctx, detach)
	keep("detach", ls, err)
	ls, err = s.Leases(ctx, "netns:a b&c", true)
	keep("leases", ls, err)
	ls, err = s.Renew(ctx, "web")
	keep("renew", ls, err)
	ls, err = s.Release(ctx, "10.0.0.5")
	keep("release", ls, err)
	res, err := s.Probe(ctx, probe, say)
	keep("probe", res, err)
	st, err := s.Status(ctx)
	keep("status", st, err)
	err = s.Events(ctx, quiet, func(e Event) error { events = append(events, e); return nil })
	if e := new(Error); !errors.As(err, &e) || e.Code != CodeDown {
		t.Errorf("events that end by themselves: %v", err)
	}
	wantSeen := map[string]any{"attach": attach, "detach": detach, "leases": []any{"netns:a b&c", true}, "renew": "web", "release": "10.0.0.5", "probe": probe}
	if diff := cmp.Diff(wantSeen, seen); diff != "" {
		t.Errorf("at the service (-want +got):\n%s", diff)
	}
	wantGot := map[string]any{"attach": lease, "detach": []Lease{lease}, "leases": []Lease{}, "renew": []Lease{lease}, "release": []Lease{lease}, "probe": result, "status": status}
	if diff := cmp.Diff(wantGot, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("at the client (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"one", "two", "three"}, said); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Event{event, event}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestErrorsKeepTheirCodes(t *testing.T) {
	for _, code := range []Code{CodeFailed, CodeUsage, CodeNoAnswer, CodeConflict, CodeDown} {
		s := serve(t, &fake{
			attach: func(context.Context, AttachRequest, func(string)) (Lease, error) {
				return Lease{}, &Error{code, "why"}
			},
			renew: func(context.Context, string) ([]Lease, error) { return nil, &Error{code, "why"} },
		})
		_, err := s.Attach(t.Context(), AttachRequest{Target: "a", Parent: "b"}, nil)
		if diff := cmp.Diff(error(&Error{code, "why"}), err); diff != "" {
			t.Errorf("attach (-want +got):\n%s", diff)
		}
		_, err = s.Renew(t.Context(), "a")
		if diff := cmp.Diff(error(&Error{code, "why"}), err); diff != "" {
			t.Errorf("renew (-want +got):\n%s", diff)
		}
	}
}

// The client waits until the keeper has undone what it called off.
func TestCallingOffAnAttach(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended, proceed := make(chan struct{}), make(chan struct{})
	undone := false
	s := serve(t, &fake{attach: func(ctx context.Context, _ AttachRequest, progress func(string)) (Lease, error) {
		progress("waiting")
		<-ctx.Done()
		close(ended)
		progress("undoing")
		<-proceed
		undone = true
		return Lease{}, ctx.Err()
	}})
	result := make(chan error)
	go func() {
		_, err := s.Attach(ctx, AttachRequest{Target: "web", Parent: "b"}, func(what string) {
			switch what {
			case "waiting":
				cancel()
			case "undoing": // still heard after the cancel
				close(proceed)
			}
		})
		result <- err
	}()
	<-ended
	if err := <-result; err == nil || err.Error() != "attach web was called off and undone" {
		t.Errorf("got %v", err)
	}
	if !undone {
		t.Error("the client did not wait")
	}
}

func TestWhatUndoingMeetsIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, &fake{attach: func(ctx context.Context, _ AttachRequest, progress func(string)) (Lease, error) {
		cancel()
		<-ctx.Done()
		return Lease{}, errors.New("failed to delete child eth0")
	}})
	_, err := s.Attach(ctx, AttachRequest{Target: "web", Parent: "b"}, nil)
	if err == nil || !strings.Contains(err.Error(), "failed to delete child") {
		t.Errorf("got %v", err)
	}
}

// A lease whose attach was called off too late is given back.
func TestLateAttachIsReleased(t *testing.T) {
	released := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, &fake{
		attach: func(ctx context.Context, _ AttachRequest, _ func(string)) (Lease, error) {
			cancel()
			<-ctx.Done()
			return Lease{ID: "7f"}, nil
		},
		release: func(ctx context.Context, q string) ([]Lease, error) {
			if ctx.Err() != nil {
				t.Error("the release has no time")
			}
			released <- q
			return nil, nil
		},
	})
	_, err := s.Attach(ctx, AttachRequest{Target: "web", Parent: "b"}, nil)
	if err == nil || err.Error() != "attach web was called off and undone" {
		t.Errorf("got %v", err)
	}
	if q := <-released; q != "7f" {
		t.Errorf("released %q", q)
	}
}

// A client that is killed leaves nothing behind either.
func TestKilledClientsAttachIsUndone(t *testing.T) {
	begun, ended, released := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	s := serve(t, &fake{
		attach: func(ctx context.Context, _ AttachRequest, _ func(string)) (Lease, error) {
			close(begun)
			<-ctx.Done()
			close(ended)
			return Lease{ID: "7f"}, nil
		},
		release: func(_ context.Context, q string) ([]Lease, error) { released <- q; return nil, nil },
	})
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, post("/v1/attach", `{"target":"a","parent":"b"}`)); err != nil {
		t.Fatal(err)
	}
	<-begun
	c.Close()
	<-ended
	if q := <-released; q != "7f" {
		t.Errorf("released %q", q)
	}
}

func TestKeeperThatCannotBeReached(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	if _, err := NewClient(stale).Status(ctx); err == nil || !strings.HasSuffix(err.Error(), "gave up reaching the keeper at "+stale+": interrupted") {
		t.Errorf("called off: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", maxSocketPath))
	_, err = NewClient(long).Status(t.Context())
	if e := new(Error); !errors.As(err, &e) || e.Code != CodeDown || NotRunning(err) || !strings.Contains(e.Message, "a socket's can have 107") {
		t.Errorf("a path that is too long: %v", err)
	}
	for _, path := range []string{filepath.Join(dir, "none.sock"), filepath.Join(dir, "no", "folder.sock"), stale} {
		_, err := NewClient(path).Status(t.Context())
		e := new(Error)
		if !errors.As(err, &e) || e.Code != CodeDown || !NotRunning(err) {
			t.Fatalf("%s: %v", path, err)
		}
		if !strings.Contains(e.Message, "keeper not reachable at "+path) || !strings.Contains(e.Message, "mvdhcp serve") {
			t.Errorf("message %q", e.Message)
		}
	}
}

func TestKeeperThatAnswersOddly(t *testing.T) {
	for name, tt := range map[string]struct {
		answer, want string
		code         Code
	}{
		"nothing":      {"", "went away", CodeDown},
		"half a head":  {"HTTP/1.1 200 O", "went away", CodeDown},
		"half a line":  {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"progress\":", "went away", CodeDown},
		"no result":    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "another version", ""},
		"no JSON":      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "another version", ""},
		"another type": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "another version", ""},
		"a plain 500":  {"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "500 Oh", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				c.Read(make([]byte, 4096)) //nolint:errcheck // the test fails without
				io.WriteString(c, tt.answer)
			}()
			_, err = NewClient(path).Attach(t.Context(), AttachRequest{}, nil)
			e := new(Error)
			if errors.As(err, &e); err == nil || !strings.Contains(err.Error(), tt.want) || e.Code != tt.code || NotRunning(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, &fake{events: func(ctx context.Context, emit func(Event) error) error {
		defer close(ended)
		emit(Event{Kind: "bound"}) //nolint:errcheck // the client tells
		<-ctx.Done()
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	if err := s.Events(ctx, quiet, func(Event) error { n++; cancel(); return nil }); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
	<-ended
}

// A keeper that takes calls and never answers hangs.
func TestKeeperThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := &Client{path, time.Millisecond}
	_, err1 := c.Status(t.Context())
	_, err2 := c.Leases(t.Context(), "", true)
	for _, err := range []error{err1, err2} {
		if e := new(Error); !errors.As(err, &e) || e.Code != CodeDown || NotRunning(err) || !strings.Contains(err.Error(), "the keeper at "+path) || !strings.Contains(err.Error(), "not answered within 1ms") {
			t.Errorf("got %v", err)
		}
	}
}

func TestEmptyListsAreNoNulls(t *testing.T) {
	at := Time{time.Now()} // a time that there is none of is null
	l := Lease{BoundAt: at, RenewAt: at, RebindAt: at, ExpiresAt: at}
	for _, v := range []any{l, &l, []Lease{l}, ProbeResult{Offers: []ProbeOffer{{}}}, ProbeResult{}, Status{Leases: map[string]int{}, Events: map[string]int64{}}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "null") {
			t.Errorf("%s", b)
		}
	}
}

func TestMain(m *testing.M) {
	os.Unsetenv("DOCKER_HOST")
	os.Exit(m.Run())
}
