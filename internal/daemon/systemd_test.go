// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// passing starts a keeper with sockets as systemd passes them (sd_listen_fds(3)).
func (s *site) passing(names string, sockets ...*os.File) *lab.Process {
	s.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --state-dir "$1"`, s.Binary(), s.k.StateDir)
	cmd.Env = append(os.Environ(), "LISTEN_FDS="+map[int]string{1: "1", 2: "2"}[len(sockets)], "LISTEN_FDNAMES="+names, "MVDHCP_SOCKET="+filepath.Join(s.Dir(), "not-this-one"))
	cmd.ExtraFiles = sockets
	return s.h.StartCommand(cmd)
}

// TestPassedSockets starts keepers with sockets that stay when they end: what is
// asked meanwhile is answered by the next one.
func TestPassedSockets(t *testing.T) {
	s := newSite(t)
	s.k.Term()
	file := func(path string) *os.File {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	sock, plugin := file(s.k.Socket), file(filepath.Join(s.Dir(), "plugin.sock"))
	ask := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), soon)
			defer cancel()
			_, err := api.NewClient(s.k.Socket).Status(ctx)
			done <- err
		}()
		return done
	}
	answered := func(done <-chan error) {
		t.Helper()
		if err := <-done; err != nil {
			t.Errorf("status: %v", err)
		}
	}
	first := ask() // before there is a keeper
	p := s.passing("api:docker", sock, plugin)
	answered(first)
	if r := s.k.Run("serve", "--state-dir", s.k.StateDir); r.Status != 1 || !strings.Contains(r.Stderr, "already running") {
		t.Errorf("a second keeper: %v", r)
	}
	p.Kill9()
	second := ask()
	select {
	case err := <-second:
		t.Errorf("answered without a keeper: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	p = s.passing("docker:api", plugin, sock)
	answered(second)
	if status := p.Term(); status != 0 {
		t.Errorf("status %d after SIGTERM:\n%s", status, p.Output())
	}
	for _, path := range []string{s.k.Socket, filepath.Join(s.Dir(), "plugin.sock")} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the keeper removed a socket that is not its own: %v", err)
		}
	}
	if p = s.passing("api:other", sock, plugin); p.Exit(soon) != 1 || !strings.Contains(p.Output(), `named "other"`) {
		t.Errorf("a socket of an unknown name:\n%s", p.Output())
	}
}
