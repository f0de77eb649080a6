// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchdogEnv holds the prefix of the names to remove when standard input ends.
// A program that is started with it is a watchdog and nothing else.
const watchdogEnv = "MVDHCP_LAB_WATCHDOG"

// sleeperEnv makes the program a process that does nothing until it is killed.
const sleeperEnv = "MVDHCP_LAB_SLEEPER"

// memberEnv is in the environment of every process that a lab starts, with the
// lab's name and a dash behind it.
const memberEnv = "MVDHCP_LAB"

func init() {
	if os.Getenv(sleeperEnv) != "" {
		for {
			_ = unix.Pause()
		}
	}
	if prefix := os.Getenv(watchdogEnv); prefix != "" {
		signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
		watch(os.Stdin, prefix)
		os.Exit(0)
	}
}

// guard starts this process's watchdog and removes what dead processes left.
var guard = sync.OnceValue(func() error {
	sweepDead()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	defer r.Close()
	dog := exec.Command("/proc/self/exe")
	dog.Args = []string{"lab-watchdog"}
	dog.Env = append(os.Environ(), watchdogEnv+"="+ownPrefix())
	dog.Stdin = r
	dog.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := dog.Start(); err != nil {
		w.Close()
		return fmt.Errorf("start the watchdog: %w", err)
	}
	leash = w
	return nil
})

// leash is open as long as this process lives. It carries the processes that it
// started.
var leash *os.File

// entrust has the watchdog kill a process that is to end with this one, should
// it have left the lab's namespaces, or they their names.
func entrust(pid int) {
	fmt.Fprintf(leash, "%d %s\n", pid, startTime(pid))
}

// watch returns when the other end of in is closed and all is removed.
func watch(in io.Reader, prefix string) {
	entrusted := map[int]string{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var pid int
		var start string
		if n, _ := fmt.Sscan(lines.Text(), &pid, &start); n == 2 {
			entrusted[pid] = start
		}
	}
	_ = sweep(prefix)
	for pid, start := range entrusted {
		if startTime(pid) == start {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// ownPrefix begins the names of everything that this process makes: its id and
// its start time, so that another process with the same id is told apart.
var ownPrefix = sync.OnceValue(func() string {
	return fmt.Sprintf("lab%d-%s-", os.Getpid(), startTime(os.Getpid()))
})

var labName = regexp.MustCompile(`^lab([0-9]+)-([0-9a-z]+)-`)

// startTime is a process's start in ticks since the boot, "" when there is none
// that runs.
func startTime(pid int) string {
	f := statFields(pid)
	if f == nil {
		return ""
	}
	ticks, err := strconv.ParseUint(f[statStart], 10, 64)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(ticks, 36)
}

// Indexes into what statFields returns (proc_pid_stat(5), fields 3, 4 and 22).
const (
	statState  = 0
	statParent = 1
	statStart  = 19
)

// statFields are those after the command's name, nil when the process has ended.
func statFields(pid int) []string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) <= statStart || f[statState] == "Z" {
		return nil
	}
	return f
}

// sweepDead removes what belongs to processes that are no more.
func sweepDead() {
	dead := map[string]bool{}
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			m := labName.FindStringSubmatch(e.Name())
			if m == nil {
				continue
			}
			if pid, err := strconv.Atoi(m[1]); err == nil && startTime(pid) != m[2] {
				dead[m[0]] = true
			}
		}
	}
	for prefix := range dead {
		_ = sweep(prefix)
	}
}
