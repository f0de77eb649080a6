// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// unusedFor is how long an image or kernel stays in the cache without use.
const unusedFor = 7 * 24 * time.Hour

// cache is a directory of finished things, each a file or folder named after
// what it was made from. Things appear whole, by a rename. Whoever makes one
// holds the lock; whoever only uses one doesn't.
type cache struct{ dir string }

func openCache() (cache, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return cache{}, fmt.Errorf("find the cache directory (set XDG_CACHE_HOME): %w", err)
	}
	c := cache{filepath.Join(base, "mvdhcp", "vm")}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return cache{}, fmt.Errorf("make the cache directory: %w", err)
	}
	return c, nil
}

// have says whether name is there, and counts it as used.
func (c cache) have(name string) bool {
	now := time.Now()
	return os.Chtimes(c.path(name), now, now) == nil
}

func (c cache) path(name string) string { return filepath.Join(c.dir, name) }

// lock waits until no other process makes anything in the cache. The lock ends
// with the process, if not before.
func (c cache) lock(ctx context.Context, say func(string, ...any)) (unlock func(), err error) {
	f, err := os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return func() { f.Close() }, nil
	}
	say("another process is building it, waiting")
	locked := make(chan error, 1)
	go func() { locked <- flock(f) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { <-locked; f.Close() }()
		return nil, ctx.Err()
	}
}

// make has fill make a folder and puts it in place as name. The lock is held.
func (c cache) make(name string, fill func(dir string) error) error {
	tmp, err := os.MkdirTemp(c.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, c.path(name))
}

// tidy removes what builders that were killed left and what nobody has used for
// long. The lock is held, so nothing that starts with tmp- has an owner.
func (c cache) tidy() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == "lock" {
			continue
		}
		if strings.HasPrefix(e.Name(), "tmp-") || time.Since(info.ModTime()) > unusedFor {
			os.RemoveAll(c.path(e.Name()))
		}
	}
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			return err
		}
	}
}
