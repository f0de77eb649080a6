// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

const emulator = "qemu-system-x86_64"

// machine is one run of QEMU. What comes out of the guest goes to the writers,
// each of which one goroutine writes to.
type machine struct {
	kernel  string
	root    *os.File
	disk    string
	memory  int
	cable   bool
	output  io.Writer // the command's
	report  io.Writer // init's last word
	console io.Writer // the kernel's, and QEMU's own complaints
}

// kernelLine: all of the boot on the console, no second chance after a panic or
// an oops, nothing that only slows down, and no complaint when a busy host makes
// time pass in jumps.
const kernelLine = "console=ttyS0 earlyprintk=serial,ttyS0,115200 loglevel=7 panic=-1 oops=panic rdinit=/init " +
	"mitigations=off no_timer_check audit=0 nowatchdog rcupdate.rcu_cpu_stall_suppress=1"

// The descriptors that QEMU inherits, after its standard streams.
const (
	fdRoot = 3 + iota
	fdOutput
	fdReport
	fdConsole
)

func (m machine) args() []string {
	memory := m.memory
	if memory == 0 {
		memory = 512
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2",
		"-m", strconv.Itoa(memory),
		"-kernel", m.kernel, "-initrd", inherited(fdRoot), "-append", kernelLine,
		"-chardev", "file,id=console,path=" + inherited(fdConsole),
		"-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=output,path=" + inherited(fdOutput),
		"-device", "virtserialport,chardev=output,name=output",
		"-chardev", "file,id=report,path=" + inherited(fdReport),
		"-device", "virtserialport,chardev=report,name=report",
	}
	if m.disk != "" {
		// A comma in an option's value is written twice.
		file := strings.ReplaceAll(m.disk, ",", ",,")
		args = append(args, "-drive", "if=virtio,format=raw,cache=unsafe,file="+file)
	}
	if m.cable {
		for n := range 2 {
			args = append(args,
				"-netdev", fmt.Sprintf("hubport,id=end%d,hubid=0", n),
				"-device", fmt.Sprintf("virtio-net-pci,netdev=end%d,mac=52:54:00:00:00:%02x,romfile=", n, n+1))
		}
	}
	return args
}

func inherited(fd int) string { return "/dev/fd/" + strconv.Itoa(fd) }

// run returns when the machine is gone and all it said has been written. It ends
// with ctx, and with this process.
func (m machine) run(ctx context.Context) error {
	paths, err := find(emulator)
	if err != nil {
		return err
	}
	var streams errgroup.Group
	inherit := []*os.File{m.root}
	defer func() {
		for _, f := range inherit[1:] {
			f.Close()
		}
	}()
	for _, to := range []io.Writer{m.output, m.report, m.console} {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("make a pipe: %w", err)
		}
		inherit = append(inherit, w)
		streams.Go(func() error {
			defer r.Close()
			_, err := io.Copy(to, r)
			if err != nil {
				_, _ = io.Copy(io.Discard, r) // the guest must not hang on it
				return fmt.Errorf("pass on what the VM says: %w", err)
			}
			return nil
		})
	}
	cmd := exec.CommandContext(ctx, paths[emulator], m.args()...)
	cmd.ExtraFiles = inherit
	cmd.Stderr = inherit[fdConsole-fdRoot]
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = onOneThread(cmd)
	for _, f := range inherit[1:] {
		f.Close()
	}
	inherit = inherit[:1]
	if e := streams.Wait(); err == nil {
		err = e
	}
	return err
}

// onOneThread runs a command from a thread that lives as long as the command:
// the kernel sends Pdeathsig when the parent's *thread* ends (prctl(2)).
func onOneThread(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("qemu: %w", err)
	}
	return nil
}
