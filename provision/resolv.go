// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ResolvFile says whose resolv.conf is meant: a named namespace's, which
// `ip netns exec` shows its commands, or that of a process's file system.
type ResolvFile struct {
	// Netns is a name under /run/netns; its file is /etc/netns/NAME/resolv.conf.
	Netns string `json:"netns,omitempty"`
	PID   int    `json:"pid,omitempty"`
	// Start is when the process started (proc_pid_stat(5), starttime), so that a
	// later process with the same PID isn't taken for it.
	Start uint64 `json:"start,omitempty"`
}

// maxResolv is the size up to which files are read and written.
const maxResolv = 64 << 10

// NamedResolv is the file of a named namespace.
func NamedResolv(name string) (ResolvFile, error) {
	f := ResolvFile{Netns: name}
	return f, f.check()
}

// ProcessResolv is the file that the process reads.
func ProcessResolv(pid int) (ResolvFile, error) {
	start, err := ProcessStart(pid)
	if err != nil {
		return ResolvFile{}, err
	}
	return ResolvFile{PID: pid, Start: start}, nil
}

// ReadResolv reads the file; existed is false when there is none. A process
// that is gone is ErrGone; what isn't the target's own regular file is refused
// with ErrInvalid, by all three functions.
func ReadResolv(f ResolvFile) (content []byte, existed bool, err error) { return realHost.read(f) }

// WriteResolv writes the file in place, since container engines bind-mount it,
// and makes it, with its directory, when it is missing. It never writes to the
// host's own resolv.conf.
func WriteResolv(f ResolvFile, content []byte) error { return realHost.write(f, content) }

// RestoreResolv puts back what ReadResolv returned: the content, or, when the
// file didn't exist, its absence, with the directories made for it.
func RestoreResolv(f ResolvFile, content []byte, existed bool) error {
	if existed {
		return realHost.write(f, content)
	}
	return realHost.remove(f)
}

// resolvHost is where the host's own files are.
type resolvHost struct {
	netns  string // directory of the named namespaces' files
	root   string
	etc    string
	resolv string
}

var realHost = resolvHost{netns: "/etc/netns", root: "/", etc: "/etc", resolv: "/etc/resolv.conf"}

func (h resolvHost) read(f ResolvFile) ([]byte, bool, error) {
	dir, err := h.openDir(f)
	if errors.Is(err, errNoDir) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer dir.close()
	file, err := h.openFile(f, dir, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxResolv+1))
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", f, err)
	}
	if len(content) > maxResolv {
		return nil, false, faultf(ErrInvalid, "%s is larger than %d bytes: no resolv.conf", f, maxResolv)
	}
	return content, true, nil
}

func (h resolvHost) write(f ResolvFile, content []byte) error {
	if len(content) > maxResolv {
		return faultf(ErrInvalid, "%s: %d bytes are more than a resolv.conf may have (%d)", f, len(content), maxResolv)
	}
	if f.Netns != "" && f.check() == nil {
		if err := os.MkdirAll(h.netns+"/"+f.Netns, 0o755); err != nil {
			return fmt.Errorf("make the directory of %s: %w", f, err)
		}
	}
	dir, err := h.openDir(f)
	if err != nil {
		return err
	}
	defer dir.close()
	file, err := h.openFile(f, dir, unix.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = h.create(f, dir)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("empty %s: %w", f, err)
	}
	if _, err := io.Copy(file, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	return nil
}

// remove takes away a file that write made.
func (h resolvHost) remove(f ResolvFile) error {
	dir, err := h.openDir(f)
	if errors.Is(err, errNoDir) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.close()
	file, err := h.openFile(f, dir, unix.O_RDONLY)
	if err == nil {
		file.Close()
		err = unix.Unlinkat(dir.etc, "resolv.conf", 0)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", f, err)
	}
	if f.Netns != "" { // each goes only when nothing else is in it
		if unix.Rmdir(h.netns+"/"+f.Netns) == nil {
			_ = unix.Rmdir(h.netns)
		}
	}
	return nil
}

// String names the file for messages.
func (f ResolvFile) String() string {
	if f.Netns != "" {
		return "/etc/netns/" + f.Netns + "/resolv.conf"
	}
	return fmt.Sprintf("/etc/resolv.conf of process %d", f.PID)
}

func (f ResolvFile) check() error {
	switch {
	case (f.Netns != "") == (f.PID != 0):
		return faultf(ErrInvalid, "resolv.conf: name either a namespace or a process")
	case f.Netns == "." || f.Netns == ".." || strings.ContainsAny(f.Netns, "/\x00") || len(f.Netns) > 255:
		return faultf(ErrInvalid, "namespace name %q: not a name under /run/netns", f.Netns)
	case f.PID < 0:
		return faultf(ErrInvalid, "process %d: there is none", f.PID)
	}
	return nil
}
