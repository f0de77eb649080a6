// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("held by another process")

// lock is a file that one process holds at a time and no longer than it lives:
// an open file description lock (fcntl(2)), which can be asked about without
// being taken. The file holds the process id.
type lock struct{ f *os.File }

// lockFile takes the lock, or fails with errLocked.
func lockFile(path string) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		ours, err := takeLock(f, path)
		if err == nil && ours {
			return &lock{f}, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		// Its holder removed the file between open and lock: the next one.
	}
}

// takeLock locks f and reports whether path still leads to it.
func takeLock(f *os.File, path string) (bool, error) {
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, errLocked
	}
	if err != nil {
		return false, fmt.Errorf("failed to lock %s: %w", path, err)
	}
	there, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := f.Stat()
	if err != nil || !os.SameFile(mine, there) {
		return false, err
	}
	if err := f.Truncate(0); err != nil {
		return false, fmt.Errorf("failed to write %s: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return false, fmt.Errorf("failed to write %s: %w", path, err)
	}
	return true, nil
}

// release removes the file while it is still locked, so that nobody's new lock
// is removed.
func (l *lock) release() {
	os.Remove(l.f.Name())
	l.f.Close()
}

// lockOwner asks without taking.
func lockOwner(path string) (pid int, held bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	query := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil || query.Type == unix.F_UNLCK {
		return 0, false
	}
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, true
	}
	pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	return pid, true
}
