// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOrphan: a machine ends with the process that runs it, however that dies.
func TestOrphan(t *testing.T) {
	if os.Getenv("VM_TEST_ORPHAN") != "" {
		_, err := Run(t.Context(), Options{Command: []string{"sh", "-c", "echo running; sleep 600"}, Stdout: os.Stdout})
		t.Fatalf("the machine ended first: %v", err)
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestOrphan$")
	parent.Env = append(os.Environ(), "VM_TEST_ORPHAN=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = parent.Process.Kill()
		_ = parent.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "running\n" {
		t.Fatalf("the machine said %q, error %v", line, err)
	}
	machines := childrenOf(t, parent.Process.Pid)
	if len(machines) != 1 {
		t.Fatalf("the parent has %d children, want one machine", len(machines))
	}
	fd, err := unix.PidfdOpen(machines[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(30 * time.Second); ; {
		n, err := unix.Poll(gone, int(time.Until(end).Milliseconds()))
		if n == 1 {
			return
		}
		if err != unix.EINTR || time.Now().After(end) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			t.Fatal("the machine outlived its parent")
		}
	}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || files == nil {
		t.Fatalf("no list of children of %d: %v", pid, err)
	}
	var pids []int
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(data)) {
			var child int
			if _, err := fmt.Sscan(word, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
