// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resolvDir is the directory a resolv.conf is in, opened so that no symbolic
// link in a container can lead out of it.
type resolvDir struct {
	root int // path resolution stays below it
	etc  int // the directory itself
	path string
}

var errNoDir = fmt.Errorf("no directory for resolv.conf: %w", fs.ErrNotExist)

func (d *resolvDir) close() {
	unix.Close(d.root)
	unix.Close(d.etc)
}

func (h resolvHost) openDir(f ResolvFile) (*resolvDir, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	rootPath, etc, path := h.netns, f.Netns, f.Netns+"/resolv.conf"
	if f.PID != 0 {
		rootPath, etc, path = fmt.Sprintf("/proc/%d/root", f.PID), "etc", "etc/resolv.conf"
	}
	root, err := unix.Open(rootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil && f.PID != 0 {
		if err := h.checkProcess(f, root); err != nil {
			unix.Close(root)
			return nil, err
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.PID != 0, errors.Is(err, unix.ESRCH):
		return nil, faultf(ErrGone, "process %d is gone", f.PID)
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoDir
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", rootPath, err)
	}
	fd, err := openBelow(root, etc, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		unix.Close(root)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoDir
		}
		return nil, fmt.Errorf("open the directory of %s: %w", f, err)
	}
	return &resolvDir{root: root, etc: fd, path: path}, nil
}

// checkProcess makes sure that root, opened by PID, is of the process meant,
// and isn't the host's own.
func (h resolvHost) checkProcess(f ResolvFile, root int) error {
	if start, err := ProcessStart(f.PID); err != nil {
		return err
	} else if f.Start != 0 && start != f.Start {
		return faultf(ErrGone, "process %d is gone: another one has its number", f.PID)
	}
	if sameFile(root, h.root) {
		return faultf(ErrInvalid, "process %d shares the host's files, so its resolv.conf is the host's own, which is never written: leave DNS alone, or attach a container", f.PID)
	}
	return nil
}

// openFile opens the file that is there, when it is a regular one and not the
// host's own resolv.conf. It is looked at before it is opened for good: opening
// a device or a FIFO could do or wait for anything.
func (h resolvHost) openFile(f ResolvFile, dir *resolvDir, access int) (*os.File, error) {
	flags := unix.O_PATH
	if f.Netns != "" {
		flags |= unix.O_NOFOLLOW // the administrator's directory has no use for links
	}
	fd, err := openBelow(dir.root, dir.path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("examine %s: %w", f, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, faultf(ErrInvalid, "%s is not a regular file: left alone", f)
	}
	if sameFile(fd, h.resolv) {
		return nil, faultf(ErrInvalid, "%s is the host's own resolv.conf, which is never written: leave DNS alone for this target", f)
	}
	opened, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), access|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f, err)
	}
	return os.NewFile(uintptr(opened), f.String()), nil
}

// create makes the file where none is; a dangling symbolic link isn't followed.
func (h resolvHost) create(f ResolvFile, dir *resolvDir) (*os.File, error) {
	if sameFile(dir.etc, h.etc) {
		return nil, faultf(ErrInvalid, "%s would be the host's own, which is never written: leave DNS alone for this target", f)
	}
	fd, err := unix.Openat(dir.etc, "resolv.conf", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, faultf(ErrInvalid, "%s is a symbolic link that leads nowhere: left alone", f)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", f, err)
	}
	// The umask must not keep the target's users from reading it.
	_ = unix.Fchmod(fd, 0o644)
	return os.NewFile(uintptr(fd), f.String()), nil
}

// openBelow resolves path as if root were "/", and follows no magic link of
// /proc (openat2(2)).
func openBelow(root int, path string, flags int, mode uint64) (int, error) {
	how := &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Mode: mode,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 100 { // EAGAIN: something was renamed or mounted meanwhile
		fd, err := unix.Openat2(root, path, how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// sameFile tells whether fd is the very file that path leads to.
func sameFile(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// ProcessStart is when a process was started, in clock ticks after boot (proc(5),
// /proc/PID/stat, field 22; the second, the command's name, is in parentheses
// and may hold anything). ErrGone: there is none, or it has exited.
func ProcessStart(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, faultf(ErrGone, "process %d is gone", pid)
	}
	if err != nil {
		return 0, fmt.Errorf("read the start of process %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(stat[max(strings.LastIndexByte(string(stat), ')'), 0):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("read the start of process %d: unexpected format", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, faultf(ErrGone, "process %d has exited", pid)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the start of process %d: %w", pid, err)
	}
	return start, nil
}
