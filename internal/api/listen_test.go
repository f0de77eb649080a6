// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestListenMakesAndRemoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "s.sock")
	old := unix.Umask(0o077)
	l, err := Listen(path)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	wantMode(t, path, os.ModeSocket|0o660)
	if pid, held := Owner(path); pid != os.Getpid() || !held {
		t.Errorf("owner %d, %v; want %d", pid, held, os.Getpid())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, held := Owner(path); held {
		t.Error("still held")
	}
}

func wantMode(t *testing.T, path string, want os.FileMode) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != want {
		t.Errorf("%s has mode %v, want %v", filepath.Base(path), fi.Mode(), want)
	}
}

func TestListenTakesOverStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if err := os.WriteFile(lockPath(path), []byte("1\n"), 0o600); err != nil { // as a killed keeper leaves it
		t.Fatal(err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale socket is not taken over: %v", err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestListenLeavesALivingKeeperAlone(t *testing.T) {
	f := &fake{status: func(context.Context) (Status, error) { return Status{PID: 4711, Version: "v9"}, nil }}
	s := serve(t, f)
	for _, without := range []string{"", "its lock file"} {
		if without != "" {
			if err := os.Remove(lockPath(s.socket)); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Listen(s.socket)
		if err == nil {
			l.Close()
			t.Fatalf("taken over from a living keeper without %q", without)
		}
		if !strings.Contains(err.Error(), "already running") || !strings.Contains(err.Error(), "pid 4711") {
			t.Errorf("the error says not who: %v", err)
		}
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("the living keeper was disturbed: %v", err)
	}
}

func TestListenNamesAKeeperThatDoesNotAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	lock, err := lockFile(lockPath(path))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	_, err = Listen(path)
	if err == nil || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

// A keeper that was killed holds its lock until the kernel has closed its
// sockets.
func TestListenOutlastsADyingKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	dying, err := lockFile(lockPath(path))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := bind(path) // which takes connections until it is closed
	if err != nil {
		t.Fatal(err)
	}
	socket.SetUnlinkOnClose(false)
	time.AfterFunc(100*time.Millisecond, func() { socket.Close(); dying.release() })
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, want string }{
		"a file that is no socket": {file, "no socket"},
		"a path too long":          {filepath.Join(dir, strings.Repeat("x", 108)), "shorter"},
		"a folder that is a file":  {filepath.Join(file, "s.sock"), "folder"},
	} {
		l, err := Listen(tt.path)
		if err == nil {
			l.Close()
			t.Errorf("%s: listens", name)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is gone: %q, %v", b, err)
	}
}

// Open file description locks tell goroutines apart as they do processes.
func TestListenRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	var held, wins atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				l, err := takeSocket(path)
				if err != nil {
					if !errors.Is(err, errLocked) {
						t.Errorf("lost for another reason: %v", err)
					}
					continue
				}
				wins.Add(1)
				if n := held.Add(1); n != 1 {
					t.Errorf("%d have the socket at once", n)
				}
				if c, err := net.Dial("unix", path); err != nil {
					t.Errorf("the winner's socket is gone: %v", err)
				} else {
					c.Close()
				}
				held.Add(-1)
				l.Close()
			}
		})
	}
	wg.Wait()
	if wins.Load() == 0 {
		t.Error("nobody got the socket")
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
