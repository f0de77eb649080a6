// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"syscall"
)

// mounts of every host, in order.
var mounts = []struct{ dir, kind, data string }{
	{"/proc", "proc", ""},
	{"/sys", "sysfs", ""},
	{"/dev", "devtmpfs", ""},
	{"/dev/pts", "devpts", "ptmxmode=0666"},
	{"/dev/shm", "tmpfs", "mode=1777"},
	{"/run", "tmpfs", "mode=0755"},
	{"/tmp", "tmpfs", "mode=1777"},
	{"/sys/fs/cgroup", "cgroup2", ""},
}

func mountAll() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
		if m.dir == "/dev" {
			useConsole()
		}
	}
	if err := syscall.Sethostname([]byte("vm")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return nil
}

// useConsole makes the serial line the standard streams, which the kernel could
// not do where the root file system has no /dev/console.
func useConsole() {
	fd, err := syscall.Open("/dev/console", syscall.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return
	}
	for std := range 3 {
		_ = syscall.Dup3(fd, std, 0)
	}
	if fd > 2 {
		syscall.Close(fd)
	}
}

// mountDisk puts the machine's disk, an ext4 file system without partitions,
// on /disk.
func mountDisk() error {
	if err := tool("modprobe", "virtio_blk"); err != nil {
		return err
	}
	if err := appear("/dev/vda"); err != nil {
		return err
	}
	if err := syscall.Mount("/dev/vda", "/disk", "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	return nil
}
