// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
)

// stopKeeper ends the keeper on a socket, if there is one, and waits for it.
func stopKeeper(t *testing.T, socket string) {
	t.Helper()
	pid, held := api.Owner(socket)
	if !held || pid == 0 || pid == os.Getpid() {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Errorf("keeper %d: %v", pid, err)
		return
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		t.Errorf("keeper %d: %v", pid, err)
		return
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func TestAttachStartsAKeeper(t *testing.T) {
	dir := t.TempDir()
	socket, state := filepath.Join(dir, "run", "s.sock"), filepath.Join(dir, "state")
	t.Cleanup(func() { stopKeeper(t, socket) })
	r := finish(t, program(t, []string{"MVDHCP_STATE_DIR=" + state}, on(socket, "attach", "netns:a", "--parent", "up0")...))
	if r.status != 0 || !strings.HasPrefix(r.stdout, "netns:a: eth0 10.0.0.57/24") {
		t.Fatalf("%+v", r)
	}
	said := regexp.MustCompile(`^mvdhcp: no keeper was running: started one in the background \(pid (\d+), log (\S+)\)\n$`).FindStringSubmatch(r.stderr)
	if said == nil {
		t.Fatalf("stderr %q", r.stderr)
	}
	pid, _ := strconv.Atoi(said[1])
	if owner, held := api.Owner(socket); !held || owner != pid {
		t.Errorf("the socket belongs to %d, %v; said was %d", owner, held, pid)
	}
	if said[2] != filepath.Join(state, "keeper.log") {
		t.Errorf("log %s", said[2])
	}
	if fi, err := os.Stat(said[2]); err != nil || fi.Mode() != 0o600 || fi.Size() == 0 {
		t.Errorf("log %v, %v", fi, err)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v: it would die with the terminal", sid, err)
	}
	for fd, want := range []string{"/dev/null", said[2], said[2]} {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || got != want {
			t.Errorf("descriptor %d is %s, %v; want %s", fd, got, err, want)
		}
	}
	if wd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || wd != "/" {
		t.Errorf("it stands in %s, %v", wd, err)
	}
	r = finish(t, program(t, nil, on(socket, "attach", "netns:b", "--parent", "up0")...))
	if r.status != 0 || r.stderr != "" {
		t.Errorf("the next attach: %+v", r)
	}
}

func TestManyAttachesStartOneKeeper(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	t.Cleanup(func() { stopKeeper(t, socket) })
	results := make([]result, 4)
	var wg sync.WaitGroup
	for i := range results {
		cmd := program(t, []string{"MVDHCP_STATE_DIR=" + dir}, on(socket, "attach", "netns:a", "--parent", "up0")...)
		wg.Go(func() { results[i] = finish(t, cmd) })
	}
	wg.Wait()
	started := 0
	for _, r := range results {
		if r.status != 0 || r.stdout == "" {
			t.Errorf("%+v", r)
		}
		started += strings.Count(r.stderr, "started one")
	}
	if started != 1 {
		t.Errorf("%d say that they started the keeper: %+v", started, results)
	}
}

func TestKeeperThatFailsToStart(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	if err := os.WriteFile(filepath.Join(dir, "keeper.log"), []byte("an old line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"MVDHCP_STATE_DIR=" + dir, asProgram + "=state file: disk on fire"}
	r := finish(t, program(t, env, on(socket, "attach", "netns:a", "--parent", "up0")...))
	wantLine(t, r, 5, "none could be started", "disk on fire", filepath.Join(dir, "keeper.log"))
	if strings.Contains(r.stderr, "an old line") {
		t.Errorf("stderr %q", r.stderr)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env = []string{"MVDHCP_STATE_DIR=" + filepath.Join(file, "state")}
	r = finish(t, program(t, env, on(socket, "attach", "netns:a", "--parent", "up0")...))
	wantLine(t, r, 5, "none could be started", file, "MVDHCP_STATE_DIR")
}

func TestStartThatIsCalledOff(t *testing.T) {
	dir := t.TempDir()
	socket, state := filepath.Join(dir, "s.sock"), filepath.Join(dir, "state")
	t.Setenv(asProgram, "")
	t.Setenv("MVDHCP_STATE_DIR", state)
	t.Cleanup(func() { stopKeeper(t, socket) })
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{unix.SIGINT})
	_, err := startKeeper(ctx, api.NewClient(socket), socket, func(string) {})
	var stderr bytes.Buffer
	if status := report(ctx, &stderr, err); status != 130 || strings.Contains(stderr.String(), "could be started") {
		t.Errorf("status %d, stderr %q", status, &stderr)
	}
	for _, want := range []string{"called off while a keeper was starting", "told to stop", state} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in %q", want, &stderr)
		}
	}
}

func TestNoStart(t *testing.T) {
	dir := t.TempDir()
	r := finish(t, program(t, []string{"MVDHCP_STATE_DIR=" + dir}, on(filepath.Join(dir, "s.sock"), "attach", "netns:a", "--parent", "up0", "--no-start")...))
	wantLine(t, r, 5, "keeper not reachable")
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestServeEndsWithASignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		socket := filepath.Join(t.TempDir(), "s.sock")
		cmd := program(t, nil, on(socket, "serve", "--state-dir", t.TempDir(), "--log-format", "json")...)
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 4096)
		n, err := log.Read(line) // it logs once it listens
		if err != nil || !bytes.HasPrefix(line[:n], []byte(`{"time":`)) {
			t.Errorf("log %q, %v", line[:n], err)
		}
		second := finish(t, program(t, nil, on(socket, "serve")...))
		wantLine(t, second, 1, "already running", "pid "+strconv.Itoa(cmd.Process.Pid))
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: the socket is left: %v", sig, err)
		}
	}
}

func TestNotRoot(t *testing.T) {
	dir := t.TempDir()
	socket := serveKeeper(t, &keeperOf{})
	for p := filepath.Dir(socket); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	coverage := t.TempDir() // under -cover the programs want to write
	if err := os.Chmod(coverage, 0o777); err != nil {
		t.Fatal(err)
	}
	attach := []string{"attach", "netns:a", "--parent", "up0"}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--socket", filepath.Join(os.TempDir(), "mvdhcp-none.sock"), "serve"}, 1, "not root"},
		{on("/nonexistent/s.sock", attach...), 1, "not root"},
		{on("/nonexistent/s.sock", append(attach, "--no-start")...), 5, "keeper not reachable"},
		{on(socket, attach...), 1, "no permission"},
		{on(socket, "leases"), 1, "no permission"},
	} {
		cmd := program(t, []string{"MVDHCP_STATE_DIR=" + dir, "GOCOVERDIR=" + coverage}, tt.args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Dir = "/"
		wantLine(t, finish(t, cmd), tt.status, tt.want)
	}
}
