// SPDX-License-Identifier: Apache-2.0

// Package vm boots a small virtual machine with a Debian kernel and runs one
// command in it. It is for what the kernel of a test machine may lack: 802.1Q,
// a reboot, a loss of power.
//
// The work enters at [Run], which boots, runs a command and returns its exit
// status, and at [RunTests], which runs a package's tests inside and passes
// their results on. Both take the machine from [BuildImage], which keeps it in
// a cache. The guest's side, process 1, is the program in the folder init.
//
// The machine is software emulation alone (QEMU's TCG), so that it works where
// /dev/kvm is missing or broken. Only tests import this package. It needs the
// Debian packages qemu-system-x86, kmod, busybox-static, dnsmasq-base and
// iproute2, and names those that are missing.
package vm
