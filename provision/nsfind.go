// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceDirs are where named namespaces are bind-mounted: by ip-netns(8) and
// by Docker.
var namespaceDirs = []string{"/run/netns", "/run/docker/netns"}

// FindNamespace looks for a path to the namespace with this device and inode:
// among the named ones first, then among those of processes. ErrGone: none.
func FindNamespace(dev, ino uint64) (Namespace, error) {
	var found Namespace
	eachNamespace(func(n Namespace) bool {
		if n.Dev == dev && n.Ino == ino && !visits(n) {
			found = n
		}
		return found.Path == ""
	})
	if found.Path == "" {
		return Namespace{}, faultf(ErrGone, "no name and no process leads to network namespace %d:%d any more", dev, ino)
	}
	return found, nil
}

// AllNamespaces lists every namespace that has a name or a process in it, each
// once, named ones by their name. The process's own is left out.
func AllNamespaces() ([]Namespace, error) {
	own, err := home()
	if err != nil {
		return nil, err
	}
	type key struct{ dev, ino uint64 }
	seen := map[key]bool{{own.id.Dev, own.id.Ino}: true}
	var all []Namespace
	eachNamespace(func(n Namespace) bool {
		if k := (key{n.Dev, n.Ino}); !seen[k] && !visits(n) {
			seen[k] = true
			all = append(all, n)
		}
		return true
	})
	return all, nil
}

// NamespaceOf finds a path to the namespace that the host knows by this id.
// ErrGone: none leads there.
func (k *Kernel) NamespaceOf(nsid int) (Namespace, error) {
	all, err := AllNamespaces()
	if err != nil {
		return Namespace{}, err
	}
	for _, n := range all {
		ns, err := n.Open()
		if err != nil {
			continue // it ended meanwhile
		}
		var id int
		err = k.onHost(func(c *conn) (err error) {
			id, err = c.namespaceID(ns.FD())
			return err
		})
		ns.Close()
		if err == nil && id == nsid && nsid >= 0 {
			return n, nil
		}
	}
	return Namespace{}, faultf(ErrGone, "no name and no process leads to the network namespace with id %d", nsid)
}

// eachNamespace calls yield with every path that leads to a namespace until
// yield returns false, but this process's own. What vanishes meanwhile is passed
// over.
func eachNamespace(yield func(Namespace) bool) {
	for _, dir := range namespaceDirs {
		for _, name := range readNames(dir) {
			if n, ok := statNamespace(filepath.Join(dir, name)); ok && isNamed(n.Path) && !yield(n) {
				return
			}
		}
	}
	self := strconv.Itoa(os.Getpid())
	for _, name := range readNames("/proc") {
		if name[0] < '0' || name[0] > '9' || name == self {
			continue
		}
		if n, ok := statNamespace("/proc/" + name + "/ns/net"); ok && !yield(n) {
			return
		}
	}
}

// visits tells whether a process's entry leads to a namespace that only its main
// thread is in, for as long as a visit takes: engines go into the namespaces of
// containers this way (setns(2) moves one thread).
func visits(n Namespace) bool {
	process, ok := strings.CutSuffix(n.Path, "/ns/net")
	if !ok {
		return false
	}
	main, elsewhere := filepath.Base(process), false
	for _, thread := range readNames(process + "/task") {
		if thread == main {
			continue
		}
		t, ok := statNamespace(process + "/task/" + thread + "/ns/net")
		if ok && t.Dev == n.Dev && t.Ino == n.Ino {
			return false
		}
		elsewhere = elsewhere || ok
	}
	return elsewhere
}

func readNames(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

func statNamespace(path string) (Namespace, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return Namespace{}, false
	}
	return Namespace{Path: path, Dev: st.Dev, Ino: st.Ino}, true
}

// isNamed tells a mounted namespace from a plain file that was left behind.
func isNamed(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}
