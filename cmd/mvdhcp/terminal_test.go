// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
)

// pty is a terminal of 60 columns and 8 lines with a program on it.
type pty struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	seen   strings.Builder
	more   chan struct{} // pokes await
	eof    chan struct{}
}

// onTerminal starts cmd with the terminal as what controls it, its stdin and
// its stderr, and its stdout unless that is set.
func onTerminal(t *testing.T, cmd *exec.Cmd) *pty {
	t.Helper()
	return onTerminalOf(t, cmd, 8)
}

// onTerminalOf is onTerminal on one of so many rows.
func onTerminalOf(t *testing.T, cmd *exec.Cmd, rows uint16) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: 60}); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = slave, slave
	if cmd.Stdout == nil {
		cmd.Stdout = slave
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, master: master, more: make(chan struct{}, 1), eof: make(chan struct{})}
	go p.read()
	return p
}

func (p *pty) read() {
	defer close(p.eof)
	b := make([]byte, 4096)
	for {
		n, err := p.master.Read(b)
		p.mu.Lock()
		p.seen.Write(b[:n])
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
		if err != nil { // EIO: the last process left the terminal
			return
		}
	}
}

func (p *pty) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// await waits until the terminal has shown text.
func (p *pty) await(text string) {
	p.t.Helper()
	for !strings.Contains(p.String(), text) {
		select {
		case <-p.more:
		case <-p.eof:
			if !strings.Contains(p.String(), text) {
				p.t.Fatalf("the terminal never showed %q: %q", text, p)
			}
		}
	}
}

// ctrlC is a key: the terminal makes a signal of it.
func (p *pty) ctrlC() {
	if _, err := p.master.WriteString("\x03"); err != nil {
		p.t.Error(err)
	}
}

// screen is what a terminal's line holds in the end.
func (p *pty) screen() []string {
	<-p.eof
	var out []string
	for l := range strings.SplitSeq(p.String(), "\n") {
		l = strings.TrimSuffix(l, "\r")
		if i := strings.LastIndex(l, "\r\x1b[K"); i >= 0 {
			l = l[i+len("\r\x1b[K"):]
		}
		out = append(out, strings.TrimPrefix(l, "^C"))
	}
	return out
}

// waiting is an attach that says what it waits for and goes on when told to.
func waiting(going chan struct{}) func(context.Context, api.AttachRequest, func(string)) (api.Lease, error) {
	return func(ctx context.Context, r api.AttachRequest, progress func(string)) (api.Lease, error) {
		progress("DISCOVER sent,\x1b waiting for an offer")
		select {
		case <-going:
			return api.Lease{ID: "1", Identity: "a", Ifname: "eth0", Address: "10.0.0.5/24", Server: "10.0.0.1", LeaseSeconds: 120}, nil
		case <-ctx.Done():
			return api.Lease{}, ctx.Err()
		}
	}
}

func TestProgressOnATerminal(t *testing.T) {
	going := make(chan struct{})
	socket := serveKeeper(t, &keeperOf{attach: waiting(going)})
	cmd := program(t, nil, on(socket, "attach", "netns:a", "--parent", "up0")...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	p := onTerminal(t, cmd)
	p.await("netns:a: DISCOVER sent,? waiting for an offer")
	p.await(" (1 s)")
	close(going)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %q", err, p)
	}
	if s := p.screen(); len(s) != 1 || s[0] != "" {
		t.Errorf("left on the terminal: %q", s)
	}
	if stdout.String() != "a: eth0 10.0.0.5/24, lease 2m from 10.0.0.1\n" {
		t.Errorf("stdout %q", stdout.String())
	}
}

func TestProgressFitsTheTerminal(t *testing.T) {
	going := make(chan struct{})
	socket := serveKeeper(t, &keeperOf{attach: waiting(going)})
	long := "netns:" + strings.Repeat("x", 60)
	cmd := program(t, nil, on(socket, "attach", long, "--parent", "up0")...)
	p := onTerminal(t, cmd)
	p.await(long[:59])
	close(going)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	<-p.eof
	if strings.Contains(p.String(), long[:60]) {
		t.Errorf("a line wraps: %q", p)
	}
}

func TestNoProgressElsewhere(t *testing.T) {
	going := make(chan struct{})
	close(going)
	socket := serveKeeper(t, &keeperOf{attach: waiting(going)})
	if r := mvdhcp(t.Context(), on(socket, "attach", "netns:a", "--parent", "up0")...); r.stderr != "" || r.status != 0 {
		t.Errorf("%+v", r)
	}
}

func TestCtrlCUndoes(t *testing.T) {
	undone := make(chan struct{})
	k := &keeperOf{attach: func(ctx context.Context, _ api.AttachRequest, progress func(string)) (api.Lease, error) {
		progress("waiting")
		<-ctx.Done()
		close(undone)
		return api.Lease{}, ctx.Err()
	}}
	cmd := program(t, nil, on(serveKeeper(t, k), "attach", "netns:a", "--parent", "up0")...)
	p := onTerminal(t, cmd)
	p.await("netns:a: waiting")
	p.ctrlC()
	<-undone
	cmd.Wait() //nolint:errcheck // the status is looked at
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit status %d", got)
	}
	if s := p.screen(); len(s) != 2 || s[0] != "mvdhcp: attach netns:a was called off and undone" {
		t.Errorf("left on the terminal: %q", s)
	}
}

// The second Ctrl-C does not wait for a keeper that takes its time.
func TestSecondCtrlCLeaves(t *testing.T) {
	undoing, left := make(chan struct{}), make(chan struct{})
	k := &keeperOf{attach: func(ctx context.Context, _ api.AttachRequest, progress func(string)) (api.Lease, error) {
		progress("waiting")
		<-ctx.Done()
		close(undoing)
		<-left
		return api.Lease{}, ctx.Err()
	}}
	cmd := program(t, nil, on(serveKeeper(t, k), "attach", "netns:a", "--parent", "up0")...)
	p := onTerminal(t, cmd)
	p.await("waiting")
	p.ctrlC()
	<-undoing
	p.await("undoing it")
	p.ctrlC()
	err := cmd.Wait()
	close(left)
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("got %v", err)
	}
}

// A lease that comes in spite of the interruption is given back.
func TestLeaseThatCrossesTheInterruption(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	k := &keeperOf{leases: []api.Lease{{ID: "7f"}}}
	socket := serveKeeper(t, k)
	cancel(interrupted{unix.SIGTERM})
	cl := api.NewClient(socket)
	if err := undoLate(ctx, cl, api.Lease{ID: "7f", Target: "netns:a"}); err == nil || err.Error() != "attach netns:a was called off and undone" {
		t.Errorf("got %v", err)
	}
	if len(k.calls) != 1 || k.calls[0] != "7f" {
		t.Errorf("the keeper was told %v", k.calls)
	}
	if got := report(ctx, &bytes.Buffer{}, errors.New("x")); got != 143 {
		t.Errorf("status %d", got)
	}
}

func TestWatchOnATerminal(t *testing.T) {
	k := &keeperOf{leases: someLeases(time.Now())[:1]}
	cmd := program(t, nil, on(serveKeeper(t, k), "leases", "--watch")...)
	p := onTerminal(t, cmd)
	p.await("1 lease at ")
	p.await("web ")
	emitter(t, k, api.Event{Kind: "bound"})
	var many []api.Lease
	for i := range 20 {
		many = append(many, api.Lease{ID: fmt.Sprint(i), Identity: fmt.Sprintf("id%02d", i), State: "bound", Target: "netns:" + strings.Repeat("x", 80)})
	}
	k.set(many, api.Event{})
	p.await("20 leases at ")
	p.await("id04")
	p.await("and 15 more")
	p.ctrlC()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
	<-p.eof
	all := p.String()
	if !strings.HasPrefix(all, "\x1b[?1049h") || !strings.HasSuffix(all, "\x1b[?1049l") {
		t.Errorf("the screen is not given back: %q", all)
	}
	framesFit(t, all, 8)
}

// A terminal too low for a table shows what it has room for.
func TestWatchOnALowTerminal(t *testing.T) {
	for rows, want := range map[uint16]string{1: "3 leases at ", 2: "and 3 more", 3: "and 3 more"} {
		k := &keeperOf{leases: someLeases(time.Now())[:3]}
		cmd := program(t, nil, on(serveKeeper(t, k), "leases", "--watch")...)
		p := onTerminalOf(t, cmd, rows)
		p.await("3 leases at ")
		p.ctrlC()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v", err)
		}
		<-p.eof
		framesFit(t, p.String(), int(rows))
		if !strings.Contains(p.String(), want) {
			t.Errorf("%d rows: no %q in %q", rows, want, p)
		}
	}
}

// framesFit checks that what was drawn has no more lines and columns than a
// terminal of 60 columns.
func framesFit(t *testing.T, all string, rows int) {
	t.Helper()
	escapes := regexp.MustCompile("\x1b\\[[?0-9]*[A-Za-z]")
	for frame := range strings.SplitSeq(all, "\x1b[H") {
		lines := strings.Split(frame, "\r\n")
		if len(lines) > rows {
			t.Errorf("%d lines on a terminal of %d: %q", len(lines), rows, lines)
		}
		for _, l := range lines {
			if l = escapes.ReplaceAllString(strings.ReplaceAll(l, "^C", ""), ""); len(l) > 59 {
				t.Errorf("a line of %d columns: %q", len(l), l)
			}
		}
	}
}
