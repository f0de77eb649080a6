// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrDied: the machine ended before the command did, as it does when the kernel
// panics or the command cuts its own power.
var ErrDied = errors.New("the VM ended before its command did")

// ErrTimeout: the command had not ended in time, and the machine was stopped.
var ErrTimeout = errors.New("the VM's command did not end in time")

// Options say what to run in the machine. Command is all that is needed.
type Options struct {
	// Command is the program, found in PATH or by its path, and its arguments.
	// Its standard input is empty. MVDHCP_VM=1 is in its environment.
	Command []string
	Env     []string // more of it, as KEY=VALUE
	Dir     string   // its working directory; empty: /

	// Files of this machine to put into the guest: the path there → here.
	Files map[string]string
	// Programs of this machine to put into the guest at the same path, with the
	// libraries they load, beside busybox, ip, bridge and dnsmasq.
	Programs []string
	// Modules to load before the command. The others of the image are loaded
	// when the kernel asks for them.
	Modules []string
	// Disk is a file that the guest has as an ext4 file system on /disk. Made,
	// with 64 MB, when it isn't there. It keeps its content from run to run.
	Disk string
	// Cable gives the machine two virtio NICs, each at the other's end of a cable.
	// They are there once the guest has loaded virtio_net.
	Cable bool

	Memory  int           // MiB; 0: 512
	Timeout time.Duration // of the command; 0: 2 minutes

	// Stdout gets what the command and its children print, both streams, as it
	// comes. Nil: nobody.
	Stdout io.Writer
	// Log hears what takes long outside the machine. Nil: standard error.
	Log io.Writer
}

// Run boots a machine, runs the command in it and returns its exit status, 128
// and the signal's number if a signal ended it. Afterwards the machine is gone,
// whatever still ran in it got SIGTERM first. When ctx ends, or the process that
// called, the machine loses its power at once: what it had not synced to its
// disk is lost. Any error that isn't the caller's carries the last lines of the
// machine's console.
func Run(ctx context.Context, o Options) (exit int, err error) {
	if len(o.Command) == 0 {
		return 0, errors.New("run in a VM: no command")
	}
	if o.Log == nil {
		o.Log = os.Stderr
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	img, err := BuildImage(ctx, o.Log)
	if err != nil {
		return 0, err
	}
	exit, err = run(ctx, img, o)
	if err != nil {
		return 0, fmt.Errorf("run %s in a VM: %w", o.Command[0], err)
	}
	return exit, nil
}

// orders and report are what passes between here and the guest's init.
type (
	orders struct {
		Command []string `json:"command"`
		Env     []string `json:"env"`
		Dir     string   `json:"dir"`
		Modules []string `json:"modules"`
		Disk    bool     `json:"disk"`
	}
	report struct {
		Booted bool   `json:"booted"`
		Exit   int    `json:"exit"`
		Error  string `json:"error"`
	}
)

// A machine that has not come to its command within bootLimit is started anew,
// up to boots times in all: an emulated processor now and then hangs in a boot.
const boots = 3

var bootLimit = time.Minute // a variable for tests

var errNoBoot = errors.New("the VM did not come up in time")

func run(ctx context.Context, img Image, o Options) (int, error) {
	if o.Disk != "" {
		if err := makeDisk(ctx, o.Disk); err != nil {
			return 0, err
		}
	}
	root, err := rootArchive(ctx, img, o)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	for n := 1; ; n++ {
		exit, err := boot(ctx, img, root, o)
		if !errors.Is(err, errNoBoot) || n == boots {
			return exit, err
		}
		fmt.Fprintf(o.Log, "vm: %v\nvm: starting it again\n", err)
	}
}

// boot is one life of a machine.
func boot(ctx context.Context, img Image, root *os.File, o Options) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = 2 * time.Minute
	}
	limit := time.AfterFunc(bootLimit, func() { cancel(errNoBoot) })
	defer func() { limit.Stop() }()

	said := &tail{max: 32 << 10}
	told := &reports{booted: func() {
		limit.Stop()
		limit = time.AfterFunc(timeout, func() { cancel(fmt.Errorf("%w (%v)", ErrTimeout, timeout)) })
	}}
	m := machine{
		kernel: img.Kernel, root: root, disk: o.Disk, memory: o.Memory, cable: o.Cable,
		output: o.Stdout, report: told, console: said,
	}
	failed := m.run(ctx)
	switch {
	case told.last != nil && told.last.Error != "":
		return 0, fmt.Errorf("the guest's init: %s%s", told.last.Error, said)
	case told.last != nil && failed == nil:
		return told.last.Exit, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%w%s", context.Cause(ctx), said)
	case failed != nil:
		return 0, fmt.Errorf("%w%s", failed, said)
	}
	return 0, fmt.Errorf("%w%s", ErrDied, said)
}

// rootArchive joins the image's archive and this run's in a file without a name,
// so that nothing is left of it whatever happens.
func rootArchive(ctx context.Context, img Image, o Options) (*os.File, error) {
	fd, err := unix.MemfdCreate("root.cpio", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the root file system: %w", err)
	}
	f := os.NewFile(uintptr(fd), "root.cpio")
	err = func() error {
		base, err := os.Open(img.Root)
		if err != nil {
			return err
		}
		defer base.Close()
		if _, err := io.Copy(f, base); err != nil {
			return err
		}
		data, err := json.Marshal(orders{o.Command, o.Env, o.Dir, o.Modules, o.Disk != ""})
		if err != nil {
			return err
		}
		return writeOverlay(ctx, f, o.Files, o.Programs, data)
	}()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make the root file system: %w", err)
	}
	return f, nil
}

// makeDisk makes a file an empty ext4 file system unless it is there.
func makeDisk(ctx context.Context, name string) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	paths, err := find("mkfs.ext4")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the disk: %w", err)
	}
	err = f.Truncate(64 << 20)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = command(ctx, "", paths["mkfs.ext4"], "-q", "-F", name)
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("make the disk %s: %w", name, err)
	}
	return nil
}
