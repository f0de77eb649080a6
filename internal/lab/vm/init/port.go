// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long a device may take to appear after its module is loaded.
const patience = 20 * time.Second

// openPort opens a virtio-serial port by its name. The descriptor blocks, and is
// close-on-exec.
func openPort(name string) (int, error) {
	var dev string
	err := until(func() bool {
		files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, f := range files {
			data, _ := os.ReadFile(f)
			if string(bytes.TrimSpace(data)) == name {
				dev = "/dev/" + filepath.Base(filepath.Dir(f))
				return true
			}
		}
		return false
	})
	if err != nil {
		return 0, fmt.Errorf("find the port %q: %w", name, err)
	}
	if err := appear(dev); err != nil {
		return 0, err
	}
	fd, err := syscall.Open(dev, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the port %q: %w", name, err)
	}
	return fd, nil
}

func appear(file string) error {
	err := until(func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", file, err)
	}
	return nil
}

// until waits for a device: the kernel makes it a moment after its module.
func until(there func() bool) error {
	for start := time.Now(); !there(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > patience {
			return fmt.Errorf("not there after %v", patience)
		}
	}
	return nil
}
