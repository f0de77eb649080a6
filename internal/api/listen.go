// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets root and the socket's group in.
const socketMode = 0o660

// maxSocketPath is what sockaddr_un has room for, a NUL at the end included
// (unix(7)).
const maxSocketPath = 107

// Listen makes the keeper's socket at path and the folder it is in. A socket
// file that nobody listens on is taken over; with a living keeper behind it
// Listen fails and says which process that is; it waits some seconds for one that
// was killed and has not ended yet. Of several that call Listen for
// one path at once, one gets it. Closing the listener removes what Listen made.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("failed to listen on %s: %s", path, longPath(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("failed to make the socket's folder: %w", err)
	}
	l, err := outlast(path)
	if errors.Is(err, errLocked) {
		return nil, alive(path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to listen on %s: %w", path, err)
	}
	return l, nil
}

func longPath(path string) string {
	return fmt.Sprintf("the path is %d bytes long, a socket's can have %d: choose a shorter one", len(path), maxSocketPath)
}

// Inherit makes the keeper's socket of one that another process listens on too,
// as systemd does. With a living keeper behind its path it fails as Listen does.
// Closing the listener leaves the socket's file where it is.
func Inherit(l *net.UnixListener) (net.Listener, error) {
	path := l.Addr().String()
	lock, err := lockFile(lockPath(path))
	if errors.Is(err, errLocked) {
		return nil, alive(path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to take over the socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	return &listener{UnixListener: l, lock: lock}, nil
}

// Owner reports whether some process holds the socket at path or is about to
// open it, and its process id, 0 when that can't be told.
func Owner(path string) (pid int, held bool) { return lockOwner(lockPath(path)) }

func lockPath(socket string) string { return socket + ".lock" }

// listener gives the lock back after the socket is gone.
type listener struct {
	*net.UnixListener
	lock *lock
	once sync.Once
}

func (l *listener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(l.lock.release)
	return err
}

const (
	// dyingFor is how long the kernel may take to end a keeper that was killed:
	// it waits some 15 ms for each packet socket that was open.
	dyingFor = 3 * time.Second
	dyingAsk = 10 * time.Millisecond
)

// outlast takes the socket, and tries again as long as the process that has the
// lock doesn't answer: it may be ending, with its socket open to the last, or
// starting.
func outlast(path string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dyingFor)
	defer cancel()
	for {
		l, err := takeSocket(path)
		if !errors.Is(err, errLocked) || ctx.Err() != nil {
			return l, err
		}
		ask, stop := context.WithTimeout(ctx, 10*dyingAsk)
		_, serr := NewClient(path).Status(ask)
		stop()
		if serr == nil {
			return nil, err
		}
		time.Sleep(dyingAsk)
	}
}

// listening reports whether a connection to the socket is taken, or would be if
// its queue weren't full.
func listening(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil || errors.Is(err, unix.EAGAIN)
}

// takeSocket fails with errLocked where a keeper lives.
func takeSocket(path string) (net.Listener, error) {
	lock, err := lockFile(lockPath(path))
	if err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		lock.release()
		return nil, err
	}
	return &listener{UnixListener: l, lock: lock}, nil
}

// bind is called with the lock held, so nobody else removes or makes the file.
func bind(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The mode of the socket before the bind is the mode of its file
	// (unix_bind_bsd in net/unix/af_unix.c): there is no moment at which others
	// could connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, cerr)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // the umask may have taken bits
		l.Close()
		return nil, fmt.Errorf("failed to open it to its group: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// removeStale removes a socket file that refuses connections. One that takes
// them is errLocked: a keeper whose lock file somebody removed.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is no socket: move it away or choose another --socket")
	}
	if listening(path) {
		return errLocked
	}
	return os.Remove(path)
}

// alive says who has the socket.
func alive(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if st, err := NewClient(path).Status(ctx); err == nil {
		return fmt.Errorf("a keeper is already running on %s (pid %d, version %s): stop it first or choose another --socket", path, st.PID, st.Version)
	}
	if pid, _ := Owner(path); pid > 0 {
		return fmt.Errorf("a keeper is already running on %s (pid %d): stop it first or choose another --socket", path, pid)
	}
	return fmt.Errorf("a keeper is already running on %s: stop it first or choose another --socket", path)
}
