// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// orders are what the host's side wrote into the root file system.
type orders struct {
	Command []string `json:"command"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	Modules []string `json:"modules"`
	Disk    bool     `json:"disk"`
}

// report is a line that tells the host's side that the command is about to
// start, or how it ended.
type report struct {
	Booted bool   `json:"booted,omitempty"`
	Exit   int    `json:"exit"`
	Error  string `json:"error,omitempty"`
}

// environment that every command has.
var environment = map[string]string{
	"PATH":      "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
	"HOME":      "/root",
	"TMPDIR":    "/tmp",
	"MVDHCP_VM": "1",
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is process 1 of a virtual machine, it runs nowhere else")
		os.Exit(2)
	}
	exit, err := serve()
	r := report{Exit: exit}
	if err != nil {
		r.Error = err.Error()
		fmt.Println("init:", err)
	}
	endAll()
	if err := tell(r); err != nil {
		fmt.Println("init: report to the host:", err)
	}
	syscall.Sync()
	_ = syscall.Unmount("/disk", 0) // it may not be mounted
	err = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	fmt.Println("init: end the machine:", err)
	select {} // the kernel panics when process 1 ends; the host has a time limit
}

// serve does all from the mounts to the end of the command.
func serve() (exit int, err error) {
	for k, v := range environment {
		os.Setenv(k, v)
	}
	if err := mountAll(); err != nil {
		return 0, err
	}
	data, err := os.ReadFile("/etc/vm.json")
	if err != nil {
		return 0, err
	}
	var o orders
	if err := json.Unmarshal(data, &o); err != nil {
		return 0, fmt.Errorf("read /etc/vm.json: %w", err)
	}
	if err := tool("modprobe", append([]string{"-a", "virtio_pci", "virtio_console"}, o.Modules...)...); err != nil {
		return 0, err
	}
	out, err := openPort("output")
	if err != nil {
		return 0, err
	}
	if o.Disk {
		if err := mountDisk(); err != nil {
			return 0, err
		}
	}
	if err := tool("ip", "link", "set", "lo", "up"); err != nil {
		return 0, err
	}
	for _, kv := range o.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			os.Setenv(k, v)
		}
	}
	if err := tell(report{Booted: true}); err != nil {
		return 0, err
	}
	return run(o, out)
}

// tool runs an applet of busybox.
func tool(name string, args ...string) error {
	cmd := exec.Command("busybox", append([]string{name}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func tell(r report) error {
	port, err := openPort("report")
	if err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = syscall.Write(port, append(line, '\n'))
	if e := syscall.Close(port); err == nil {
		err = e
	}
	return err
}
