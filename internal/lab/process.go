// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in a namespace until it ends or the lab does.
type Process struct {
	Name string
	// PID is the process's id.
	PID int

	lab   *Lab
	cmd   *exec.Cmd
	out   *output
	done  chan struct{}
	err   error // of Wait, once done is closed
	quiet bool  // says nothing that a failed test should show
}

// Start runs a program in the namespace. What it prints is kept.
func (n *NS) Start(name string, args ...string) *Process {
	n.lab.tb.Helper()
	return n.StartCommand(exec.Command(n.lab.Tool(name), args...))
}

// StartCommand is Start for a command with an environment or the like. Its
// standard output and error are joined where they are not set.
func (n *NS) StartCommand(cmd *exec.Cmd) *Process {
	n.lab.tb.Helper()
	p, err := n.start(cmd)
	n.lab.must(err, "%s: start %s", n.Name, filepath.Base(cmd.Path))
	return p
}

func (n *NS) start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Name: filepath.Base(cmd.Path), lab: n.lab, cmd: cmd, out: newOutput(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.out
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, memberEnv+"="+n.lab.id+"-")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is the watchdog's business
	// A child that lives on with the pipe open must not hold up Wait.
	cmd.WaitDelay = 2 * time.Second
	if err := n.Do(cmd.Start); err != nil {
		return nil, err
	}
	p.PID = cmd.Process.Pid
	entrust(p.PID)
	n.lab.mu.Lock()
	n.lab.started = append(n.lab.started, p)
	n.lab.mu.Unlock()
	go func() {
		p.err = cmd.Wait()
		close(p.done)
		p.out.finish()
	}()
	return p, nil
}

func (p *Process) String() string { return fmt.Sprintf("%s[%d]", p.Name, p.PID) }

// Output is what the process has printed up to now.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// AwaitOutput waits until the process has printed text.
func (p *Process) AwaitOutput(timeout time.Duration, text string) {
	p.lab.tb.Helper()
	ctx, cancel := context.WithTimeout(p.lab.tb.Context(), timeout)
	defer cancel()
	if !p.out.await(ctx, func(s string) bool { return strings.Contains(s, text) }) {
		p.lab.tb.Fatalf("lab: %s did not print %q within %v; it printed:\n%s", p, text, timeout, p.Output())
	}
}

// Exit waits for the end and returns the exit status, -1 after a signal.
func (p *Process) Exit(timeout time.Duration) int {
	p.lab.tb.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for p.Running() {
		select {
		case <-p.done:
		case <-timer.C:
			p.lab.tb.Fatalf("lab: %s has not ended within %v; it printed:\n%s", p, timeout, p.Output())
		}
	}
	if errors.Is(p.err, exec.ErrWaitDelay) {
		p.lab.tb.Errorf("lab: %s ended, but a process it started keeps its output open", p)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal. A process that has ended gets none.
func (p *Process) Signal(s unix.Signal) {
	_ = p.cmd.Process.Signal(s)
}

// Term asks the process to end and waits until it has.
func (p *Process) Term() int {
	p.lab.tb.Helper()
	p.Signal(unix.SIGTERM)
	return p.Exit(10 * time.Second)
}

// Kill9 ends the process without a word and waits until it is gone.
func (p *Process) Kill9() {
	p.kill()
}

func (p *Process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Descriptors are the process's open files: what /proc/PID/fd links to.
func (p *Process) Descriptors() []string { return Descriptors(p.PID) }

// Threads counts the process's threads.
func (p *Process) Threads() int { return Threads(p.PID) }

// MemoryBytes is the process's resident memory.
func (p *Process) MemoryBytes() int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	var kb int64
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, _ = fmt.Sscan(v, &kb)
		}
	}
	return kb << 10
}

// Descriptors are the open files of a process: what /proc/PID/fd links to.
func Descriptors(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, to)
		}
	}
	return open
}

// Threads counts the threads of a process.
func Threads(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return len(entries)
}

// output keeps what a process prints and wakes those who wait for it.
type output struct {
	mu       sync.Mutex
	buf      bytes.Buffer
	changed  chan struct{} // closed and replaced at each write
	finished bool
}

// outputMost is how much of a process's output is kept, from the end.
const outputMost = 8 << 20

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if n := o.buf.Len() - outputMost; n > 0 {
		o.buf.Next(n)
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finished = true
	close(o.changed)
	o.changed = make(chan struct{})
}

// await returns true once ok does, and false when there won't be more to try.
func (o *output) await(ctx context.Context, ok func(string) bool) bool {
	for {
		o.mu.Lock()
		text, changed, finished := o.buf.String(), o.changed, o.finished
		o.mu.Unlock()
		if ok(text) {
			return true
		}
		if finished {
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func newCommand(path string, args, env []string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}
