// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweep ends every process of the labs whose names begin with prefix, and removes
// their namespaces and directories. Processes that start others as they are
// killed are caught in a later round.
func sweep(prefix string) error {
	paths, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil {
		return err
	}
	inodes := map[uint64]bool{}
	for _, p := range paths {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			inodes[st.Ino] = true
		}
	}
	var killed []int
	for range 50 {
		killed = killAll(prefix, inodes)
		if len(killed) == 0 {
			break
		}
		awaitEnd(killed, 200*time.Millisecond)
	}
	if len(killed) > 0 {
		err = fmt.Errorf("processes %v of the lab don't end", killed)
	}
	for _, p := range paths {
		if e := deleteNS(p); e != nil && err == nil {
			err = e
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, d := range dirs {
		if e := removeDir(d); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// removeDir removes a directory, but not what others have mounted in it.
func removeDir(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		const point = 4 // proc_pid_mountinfo(5)
		if len(f) <= point || !strings.HasPrefix(f[point], dir+"/") {
			continue
		}
		// A mount below one that is unmounted goes with it.
		if err := unix.Unmount(f[point], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", f[point], err)
		}
	}
	return os.RemoveAll(dir)
}

// killAll kills all processes in namespaces with these inodes, those whose
// environment names a lab of that prefix, and those that come from either (a
// container's, which has another namespace and environment), but not itself.
func killAll(prefix string, inodes map[uint64]bool) []int {
	doomed := map[int]bool{}
	parents := map[int]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && inodes[st.Ino] || bears(pid, prefix) {
			doomed[pid] = true
		}
		if f := statFields(pid); f != nil {
			parents[pid], _ = strconv.Atoi(f[statParent])
		}
	}
	delete(doomed, os.Getpid())
	for pid := range parents {
		for p := parents[pid]; p > 1 && !doomed[pid]; p = parents[p] {
			if doomed[p] && pid != os.Getpid() {
				doomed[pid] = true
			}
		}
	}
	var killed []int
	for pid := range doomed {
		if unix.Kill(pid, unix.SIGKILL) == nil {
			killed = append(killed, pid)
		}
	}
	return killed
}

// bears says whether a process was started in a lab of the prefix.
func bears(pid int, prefix string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+memberEnv+"="+prefix))
}

// awaitEnd waits until none of the processes runs any more. A zombie doesn't.
func awaitEnd(pids []int, timeout time.Duration) {
	deadline := time.Now().Add(timeout)
	for _, pid := range pids {
		for startTime(pid) != "" && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	}
}
