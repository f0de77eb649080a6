// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// grace is what processes that outlive the command have between SIGTERM and
// SIGKILL.
const grace = 2 * time.Second

// run starts the command and waits for it. Every process that loses its parent
// becomes a child of this one, so it reaps whatever ends meanwhile.
func run(o orders, out int) (exit int, err error) {
	if len(o.Command) == 0 {
		return 0, errors.New("no command in /etc/vm.json")
	}
	program, err := exec.LookPath(o.Command[0])
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", o.Command[0], err)
	}
	null, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(program, o.Command, &syscall.ProcAttr{
		Dir:   o.Dir,
		Env:   os.Environ(),
		Files: []uintptr{uintptr(null), uintptr(out), uintptr(out)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", program, err)
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", program, err)
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case ended == pid:
			return status.ExitStatus(), nil
		}
	}
}

// endAll ends every other process, as a shutdown does.
func endAll() {
	if syscall.Kill(-1, syscall.SIGTERM) != nil {
		return // none left
	}
	gone := make(chan struct{})
	go func() {
		for {
			_, err := syscall.Wait4(-1, nil, 0, nil)
			if err != nil && err != syscall.EINTR {
				close(gone)
				return
			}
		}
	}()
	select {
	case <-gone:
	case <-time.After(grace):
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
	select {
	case <-gone:
	case <-time.After(grace): // what hangs in the kernel ends with the machine
	}
}
