// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Do runs fn on a thread that is in namespace n, on a goroutine of its own, and
// returns what fn returns. Sockets that fn opens belong to n for good and can be
// used from anywhere afterwards. fn must not start goroutines that rely on the
// namespace. A thread that can't come back to the process's own namespace ends
// and is never used again.
func (n *NS) Do(fn func() error) error {
	own, err := home()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go n.run(own, fn, done)
	return <-done
}

// NewNamespace makes a namespace that has no path and no process in it. It
// vanishes with its Close, or later when sockets in it are still open.
func NewNamespace() (*NS, error) {
	own, err := home()
	if err != nil {
		return nil, err
	}
	type result struct {
		ns  *NS
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- result{err: fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		ns, err := Open("/proc/thread-self/ns/net")
		if back := unix.Setns(own.FD(), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		if err == nil {
			// The path by which the namespace can be opened while it is open.
			ns.id.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())
		}
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

func (n *NS) run(own *NS, fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		done <- fmt.Errorf("enter namespace %s: %w", n.id.Path, err)
		return
	}
	err := errors.New("the function ended its goroutine")
	defer func() {
		back := unix.Setns(own.FD(), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		} // else the goroutine ends locked, and the runtime ends its thread
		done <- err
	}()
	err = fn()
}

// home is the process's own network namespace, the one its threads start in;
// it stays open for the life of the process.
var home = sync.OnceValues(func() (*NS, error) {
	// /proc/self would mean the main thread, which may be visiting a namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	ns.id.Path = fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
	return ns, nil
})
