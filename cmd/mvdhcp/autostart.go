// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
)

const (
	// startTimeout is how long a keeper may take to answer.
	startTimeout = 20 * time.Second
	pollEvery    = 10 * time.Millisecond
)

// startKeeper starts a keeper that outlives this process and waits until one
// answers on the socket: this one, or one that somebody else started meanwhile.
// It returns a line that says what it started, "" when it was the other one.
func startKeeper(ctx context.Context, cl *api.Client, socket string, say func(string)) (string, error) {
	if err := needRoot("starting a keeper"); err != nil {
		return "", err
	}
	say("starting a keeper")
	stateDir, err := filepath.Abs(fromEnv("MVDHCP_STATE_DIR", defaultStateDir))
	if err != nil {
		return "", notStarted(err.Error())
	}
	log, err := openLog(stateDir)
	if err != nil {
		return "", notStarted(fmt.Sprintf("state directory %s cannot be used: %v; name another one in MVDHCP_STATE_DIR", stateDir, err))
	}
	defer log.Close()
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return "", notStarted(err.Error())
	}
	k, err := spawn(log, socket, stateDir)
	if err != nil {
		return "", notStarted(err.Error())
	}
	pid, err := k.await(ctx, cl, socket)
	if err != nil && ctx.Err() != nil {
		k.wait()
		return "", fmt.Errorf("called off while a keeper was starting, which was told to stop (log %s): %w", log.Name(), err)
	}
	if err != nil {
		if line := lastLine(log, begin); line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		} else if full(log) {
			err = fmt.Errorf("%w: state directory %s is full: free some space there, or name another one in MVDHCP_STATE_DIR", err, stateDir)
		}
		return "", notStarted(fmt.Sprintf("%v (log %s)", err, log.Name()))
	}
	if pid != k.cmd.Process.Pid {
		k.end()
		return "", nil
	}
	return fmt.Sprintf("no keeper was running: started one in the background (pid %d, log %s)", pid, log.Name()), nil
}

func notStarted(why string) error {
	return &api.Error{Code: api.CodeDown, Message: "no keeper is running and none could be started: " + why}
}

func openLog(stateDir string) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(stateDir, "keeper.log"), os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
}

// keeper is a child process that is to become one.
type keeper struct {
	cmd  *exec.Cmd
	gone chan error // delivers how it ended, once
	// ended is set once that was taken.
	ended bool
}

func spawn(log *os.File, socket, stateDir string) (*keeper, error) {
	cmd := exec.Command(self(), "--socket", socket, "serve", "--state-dir", stateDir)
	cmd.Args[0] = "mvdhcp"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	k := &keeper{cmd: cmd, gone: make(chan error, 1)}
	go func() { k.gone <- cmd.Wait() }()
	return k, nil
}

// self is the path of this program; the link in /proc works when there is none
// any more, but names the process "exe".
func self() string {
	const link = "/proc/self/exe"
	path, err := os.Readlink(link)
	if err != nil {
		return link
	}
	there, err := os.Stat(path)
	if err != nil {
		return link
	}
	if mine, err := os.Stat(link); err != nil || !os.SameFile(there, mine) {
		return link
	}
	return path
}

// await returns the process id of the keeper that answers. A child that ended
// is no failure as long as another process has the socket.
func (k *keeper) await(ctx context.Context, cl *api.Client, socket string) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it did not answer within %v", startTimeout))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		st, err := cl.Status(ctx)
		if err == nil {
			return st.PID, nil
		}
		if _, held := api.Owner(socket); k.ended && !held {
			return 0, errors.New("it ended at once")
		}
		select {
		case <-k.gone:
			k.ended = true
		case <-tick.C:
		case <-ctx.Done():
			if !k.ended { // it has done nothing yet that would need it
				k.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may be gone
			}
			return 0, context.Cause(ctx)
		}
	}
}

// endWait bounds the end of a child that was not needed.
const endWait = 2 * time.Second

// end ends a child that another keeper was faster than: one that is slow to
// start would take over when the other stops meanwhile, and nobody would know.
func (k *keeper) end() {
	if k.ended {
		return
	}
	k.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended by itself
	k.wait()
}

// wait waits for the end of a child that was told to.
func (k *keeper) wait() {
	if k.ended {
		return
	}
	select {
	case <-k.gone:
	case <-time.After(endWait):
	}
}

// full reports whether the file can take no byte more, which is why a log says
// nothing.
func full(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Blocks > 0 && st.Bavail == 0
}

// lastLine returns the last line that was written to the log after begin.
func lastLine(log *os.File, begin int64) string {
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil || end <= begin {
		return ""
	}
	b := make([]byte, min(end-begin, 4096))
	n, err := log.ReadAt(b, end-int64(len(b)))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b[:n]), []byte("\n"))
	return clean(string(lines[len(lines)-1]))
}
