// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netnsDir is where ip netns keeps namespaces by name.
const netnsDir = "/run/netns"

// NS is a network namespace that `ip netns` knows by Name. The lab holds no
// descriptor of it, so it is gone once it is deleted and its processes ended.
type NS struct {
	Name string
	// Path is where it is mounted.
	Path string

	lab *Lab
}

// NS makes a namespace with its loopback up and nothing else in it. IPv6 is off
// so that the wire carries only what a test put there.
func (l *Lab) NS(role string) *NS {
	l.tb.Helper()
	n := &NS{Name: l.id + "-" + l.unique(role), lab: l}
	n.Path = filepath.Join(netnsDir, n.Name)
	l.must(createNS(n.Path), "make namespace %s", n.Name)
	return n
}

// Do runs f with the calling goroutine's thread in the namespace. Sockets that
// f opens and processes that it starts belong there for good.
func (n *NS) Do(f func() error) error {
	return inNS(n.Path, f)
}

// must is Do that ends the test on an error.
func (n *NS) must(f func() error, format string, args ...any) {
	n.lab.tb.Helper()
	n.lab.must(n.Do(f), "%s: %s", n.Name, fmt.Sprintf(format, args...))
}

// Delete removes the name, as `ip netns del` does. Processes inside live on and
// keep the namespace with them.
func (n *NS) Delete() {
	n.lab.tb.Helper()
	n.lab.must(deleteNS(n.Path), "delete namespace %s", n.Name)
}

func inNS(path string, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own namespace: %w", err)
	}
	defer home.Close()
	there, err := os.Open(path)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open namespace: %w", err)
	}
	err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
	there.Close()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("lab: leave namespace %s: %v", path, err))
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// createNS makes a namespace and binds it to path.
func createNS(path string) error {
	if err := prepareNetnsDir(); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	return inNS("/proc/thread-self/ns/net", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		for _, which := range []string{"all", "default"} {
			file := "/proc/sys/net/ipv6/conf/" + which + "/disable_ipv6"
			if err := os.WriteFile(file, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// prepareNetnsDir makes the directory a shared mount of its own, as `ip netns`
// does before its first namespace. Doing that later, over namespaces that are
// there, would leave a hidden mount of each.
func prepareNetnsDir() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", netnsDir, err)
	}
	share := func() error { return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err := share(); !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", netnsDir, err)
	}
	return share()
}

// deleteNS removes a name; it is no error when it is gone.
func deleteNS(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
