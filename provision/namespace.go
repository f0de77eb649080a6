// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// NS is an open network namespace. It keeps the namespace, and whatever lives
// in it, from being freed: close it as soon as the step that needs it is done.
// Its methods may be called concurrently, except that Close ends them all.
type NS struct {
	id Namespace
	fd atomic.Int32

	mu   sync.Mutex
	stay *conn // of Stay
}

// Open opens the network namespace at path (/run/netns/NAME, /proc/PID/ns/net).
// A path that isn't there is ErrGone, one that is no network namespace
// ErrInvalid.
func Open(path string) (*NS, error) {
	fd, err := openNS(path)
	if err != nil {
		return nil, err
	}
	id, err := identify(fd, path)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newNS(id, fd), nil
}

// HostPath is the path in a Namespace that stands for the one this process
// itself lives in, whatever its process id.
const HostPath = "host"

// Host names the network namespace of this process itself.
func Host() (Namespace, error) {
	own, err := home()
	if err != nil {
		return Namespace{}, err
	}
	return Namespace{Path: HostPath, Dev: own.id.Dev, Ino: own.id.Ino}, nil
}

// Open opens the namespace that n names. When the path is gone, or by now
// belongs to another namespace, the error is ErrGone.
func (n Namespace) Open() (*NS, error) {
	if n.Path == HostPath {
		return n.openHost()
	}
	ns, err := Open(n.Path)
	if errors.Is(err, ErrInvalid) {
		return nil, faultf(ErrGone, "namespace %s is gone: a plain file stands in its place", n.Path)
	}
	if err != nil {
		return nil, err
	}
	if ns.id.Dev != n.Dev || ns.id.Ino != n.Ino {
		ns.Close()
		return nil, faultf(ErrGone, "namespace %s is gone: another one has its path", n.Path)
	}
	return ns, nil
}

func (n Namespace) openHost() (*NS, error) {
	if !n.Alive() {
		return nil, faultf(ErrGone, "the host's network namespace is another one now")
	}
	own, err := home()
	if err != nil {
		return nil, err
	}
	return own.dup()
}

// Alive tells whether n's path still leads to n, by one stat and without a
// descriptor. The kernel gives an inode number out again once its namespace is
// freed, so a namespace made later under the same path can answer for n; what
// FindChild finds in it is the proof.
func (n Namespace) Alive() bool {
	if n.Path == HostPath {
		own, err := Host()
		return err == nil && own == n
	}
	var st unix.Stat_t
	return unix.Stat(n.Path, &st) == nil && st.Dev == n.Dev && st.Ino == n.Ino
}

// ID names the namespace for storage.
func (n *NS) ID() Namespace { return n.id }

// FD is the open descriptor, which stays n's; -1 after Close.
func (n *NS) FD() int { return int(n.fd.Load()) }

// Stay opens an rtnetlink socket in the namespace that the Kernel's calls share
// from then on, one at a time, until Close: for several calls in a row.
func (n *NS) Stay() error {
	c, err := n.dial()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stay != nil {
		n.stay.close()
	}
	n.stay = c
	return nil
}

// Close lets go of the namespace. A second call does nothing.
func (n *NS) Close() {
	n.mu.Lock()
	if n.stay != nil {
		n.stay.close()
		n.stay = nil
	}
	n.mu.Unlock()
	if fd := n.fd.Swap(-1); fd >= 0 {
		unix.Close(int(fd))
	}
}

// IsHost tells whether n is the network namespace of this process itself.
func (n *NS) IsHost() bool {
	own, err := home()
	return err == nil && own.id.Dev == n.id.Dev && own.id.Ino == n.id.Ino
}

// dup opens n once more, so that the copy can be kept when n is closed.
func (n *NS) dup() (*NS, error) {
	fd, err := unix.FcntlInt(uintptr(n.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the descriptor of namespace %s: %w", n.id.Path, err)
	}
	return newNS(n.id, fd), nil
}

func newNS(id Namespace, fd int) *NS {
	n := &NS{id: id}
	n.fd.Store(int32(fd))
	return n
}

func openNS(path string) (int, error) {
	// O_NONBLOCK keeps a FIFO at path from blocking the open.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR):
		return -1, faultf(ErrGone, "no network namespace at %s", path)
	case err != nil:
		return -1, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return fd, nil
}

// identify checks that fd is a network namespace (fs/nsfs.c, NS_GET_NSTYPE) and
// returns its name.
func identify(fd int, path string) (Namespace, error) {
	var fsStat unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsStat); err != nil {
		return Namespace{}, fmt.Errorf("examine %s: %w", path, err)
	}
	if fsStat.Type != unix.NSFS_MAGIC {
		return Namespace{}, faultf(ErrInvalid, "%s is not a namespace: give the path of a network namespace, like /run/netns/NAME or /proc/PID/ns/net", path)
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return Namespace{}, fmt.Errorf("examine namespace %s: %w", path, err)
	}
	if kind != unix.CLONE_NEWNET {
		return Namespace{}, faultf(ErrInvalid, "%s is a namespace, but not a network namespace", path)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Namespace{}, fmt.Errorf("examine namespace %s: %w", path, err)
	}
	return Namespace{Path: path, Dev: st.Dev, Ino: st.Ino}, nil
}
