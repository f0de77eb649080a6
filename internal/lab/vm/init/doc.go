// SPDX-License-Identifier: Apache-2.0

// Command init is process 1 of the virtual machine of mvdhcp/internal/lab/vm.
// It mounts what every host has mounted, loads modules, runs the command that
// it finds in its orders with its output on one virtio-serial port, says on
// another how the command ended, and ends the machine. It runs nowhere else.
package main
