// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// archive writes the "newc" cpio format that the kernel unpacks as its first
// root file system (Documentation/driver-api/early-userspace/buffer-format.rst).
// Parents of what is added are made as they are needed. An archive that follows
// another in one file is unpacked over it.
type archive struct {
	w    io.Writer
	n    int64
	ino  int
	dirs map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{"/": true}}
}

// The file types of a mode field (linux/stat.h).
const (
	typeDir     = 0o040000
	typeFile    = 0o100000
	typeSymlink = 0o120000
)

// dir adds a directory unless it is there.
func (a *archive) dir(name string) {
	name = clean(name)
	if a.dirs[name] {
		return
	}
	a.dirs[name] = true
	a.entry(name, typeDir|0o755, 0, strings.NewReader(""))
}

// file adds a regular file.
func (a *archive) file(name string, perm fs.FileMode, content string) {
	a.entry(name, typeFile|uint32(perm.Perm()), int64(len(content)), strings.NewReader(content))
}

// symlink adds a symbolic link.
func (a *archive) symlink(name, target string) {
	a.entry(name, typeSymlink|0o777, int64(len(target)), strings.NewReader(target))
}

// copy adds a regular file of this machine, links followed, with its mode.
func (a *archive) copy(name, from string) {
	if a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	if !st.Mode().IsRegular() {
		a.err = fmt.Errorf("%s is no regular file", from)
		return
	}
	a.entry(name, typeFile|uint32(st.Mode().Perm()), st.Size(), f)
}

// close ends the archive and reports the first error of all that was added.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, strings.NewReader(""))
	return a.err
}

func (a *archive) entry(name string, mode uint32, size int64, r io.Reader) {
	if mode != 0 {
		name = clean(name)
		a.dir(path.Dir(name))
		a.ino++
	}
	if a.err != nil {
		return
	}
	if size > 0xffffffff {
		a.err = fmt.Errorf("%s has %d bytes, an archive entry at most 4294967295", name, size)
		return
	}
	name = strings.TrimPrefix(name, "/")
	links := 1
	if mode&typeDir != 0 && mode&typeFile == 0 {
		links = 2
	}
	// magic ino mode uid gid nlink mtime size major minor rmajor rminor
	// namesize check
	a.write(fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name)+1, 0, name))
	a.pad()
	if a.err != nil {
		return
	}
	n, err := io.Copy(a.w, io.LimitReader(r, size))
	a.n += n
	if err == nil && n != size {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	a.err = err
	a.pad()
}

func (a *archive) pad() {
	if rest := a.n % 4; rest != 0 {
		a.write("\x00\x00\x00"[:4-rest])
	}
}

func (a *archive) write(s string) {
	if a.err != nil {
		return
	}
	n, err := io.WriteString(a.w, s)
	a.n += int64(n)
	a.err = err
}

func clean(name string) string { return path.Clean("/" + name) }
