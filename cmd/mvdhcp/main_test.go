// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mvdhcp/internal/api"
	"mvdhcp/internal/daemon"
)

// asProgram makes the test binary the program, with a keeper that touches no
// kernel: what it is set to is what that keeper fails with.
const asProgram = "MVDHCP_TEST_PROGRAM"

func TestMain(m *testing.M) {
	time.Local = time.UTC
	if fails, ok := os.LookupEnv(asProgram); ok {
		runKeeper = func(ctx context.Context, o daemon.Options) error { return serveFake(ctx, o, fails) }
		main()
		return
	}
	for _, name := range []string{"MVDHCP_SOCKET", "MVDHCP_STATE_DIR", "DOCKER_HOST"} {
		os.Unsetenv(name)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else each program sleeps a second under -race
	os.Exit(m.Run())
}

func serveFake(ctx context.Context, o daemon.Options, fails string) error {
	l, err := api.Listen(o.Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	if fails != "" {
		return errors.New(fails)
	}
	o.Log.Info("fake keeper ready", "state", o.StateDir)
	return api.NewServer(&keeperOf{version: o.Version}, o.Log).Serve(ctx, l)
}

// keeperOf is a Service over a list of leases. Functions that are set take a
// call over.
type keeperOf struct {
	version string
	attach  func(context.Context, api.AttachRequest, func(string)) (api.Lease, error)
	host    func(context.Context, api.HostLinkRequest) (api.Lease, error)
	probe   func(context.Context, api.ProbeRequest) (api.ProbeResult, error)
	status  api.Status

	mu      sync.Mutex
	leases  []api.Lease
	calls   []any // requests and queries as they came
	readers []chan api.Event
}

func (k *keeperOf) called(v any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, v)
}

func (k *keeperOf) Attach(ctx context.Context, r api.AttachRequest, progress func(string)) (api.Lease, error) {
	k.called(r)
	if k.attach != nil {
		return k.attach(ctx, r, progress)
	}
	return api.Lease{ID: "1", Identity: r.Target, State: "bound", Target: r.Target, Ifname: "eth0", Address: "10.0.0.57/24", Server: "10.0.0.1", LeaseSeconds: 43200}, nil
}

func (k *keeperOf) Detach(_ context.Context, r api.DetachRequest) ([]api.Lease, error) {
	k.called(r)
	return k.find(r.Target), nil
}

func (k *keeperOf) Leases(_ context.Context, q string, all bool) ([]api.Lease, error) {
	k.called(q)
	var out []api.Lease
	for _, l := range k.find(q) {
		if all || l.EndedAt.IsZero() {
			out = append(out, l)
		}
	}
	return out, nil
}

func (k *keeperOf) Renew(_ context.Context, q string) ([]api.Lease, error) {
	k.called(q)
	return k.find(q), nil
}

func (k *keeperOf) Release(_ context.Context, q string) ([]api.Lease, error) {
	k.called(q)
	return k.find(q), nil
}

func (k *keeperOf) find(q string) []api.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []api.Lease
	for _, l := range k.leases {
		if q == "" || q == l.ID || q == l.Identity || q == l.Target {
			out = append(out, l)
		}
	}
	return out
}

func (k *keeperOf) HostLink(ctx context.Context, r api.HostLinkRequest, _ func(string)) (api.Lease, error) {
	k.called(r)
	return k.host(ctx, r)
}

func (k *keeperOf) Probe(ctx context.Context, r api.ProbeRequest, _ func(string)) (api.ProbeResult, error) {
	k.called(r)
	return k.probe(ctx, r)
}

func (k *keeperOf) Events(ctx context.Context, ready func() error, emit func(api.Event) error) error {
	c := make(chan api.Event, 16)
	k.mu.Lock()
	k.readers = append(k.readers, c)
	k.mu.Unlock()
	if err := ready(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c:
			if err := emit(e); err != nil {
				return err
			}
		}
	}
}

// set changes the leases and says so to the readers of events.
func (k *keeperOf) set(leases []api.Lease, e api.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leases = leases
	for _, c := range k.readers {
		c <- e
	}
}

func (k *keeperOf) Status(context.Context) (api.Status, error) {
	if k.status.PID != 0 {
		return k.status, nil
	}
	return api.Status{Version: k.version, PID: os.Getpid()}, nil
}

// serveKeeper puts k on a socket and returns its path.
func serveKeeper(t *testing.T, k *keeperOf) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	keeperOn(t, k, socket)
	return socket
}

// keeperOn returns what stops the keeper.
func keeperOn(t *testing.T, k *keeperOf, socket string) func() {
	t.Helper()
	l, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- api.NewServer(k, slog.New(slog.DiscardHandler)).Serve(ctx, l)
		close(ended)
	}()
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the keeper failed: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// result is what a command line came to.
type result struct {
	stdout, stderr string
	status         int
}

// mvdhcp runs a command line in this process.
func mvdhcp(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	status := run(ctx, append([]string{"mvdhcp"}, args...), &stdout, &stderr)
	return result{stdout.String(), stderr.String(), status}
}

// on puts --socket before a command line.
func on(socket string, args ...string) []string {
	return append([]string{"--socket", socket}, args...)
}

// program is a command line in a process of its own.
func program(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Args[0] = "mvdhcp"
	cmd.Env = append(os.Environ(), append([]string{asProgram + "="}, env...)...)
	return cmd
}

// finish runs a program to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// wantLine wants a failure that is told in one line with these parts.
func wantLine(t *testing.T, r result, status int, parts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d", r.status, status)
	}
	if r.stdout != "" {
		t.Errorf("stdout %q", r.stdout)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "mvdhcp: ") || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("stderr is not one line: %q", r.stderr)
	}
	for _, p := range parts {
		if !strings.Contains(r.stderr, p) {
			t.Errorf("stderr %q lacks %q", r.stderr, p)
		}
	}
}
