// SPDX-License-Identifier: Apache-2.0

// Command mvdhcp puts containers, processes and namespaces on a VLAN as macvlan
// children with addresses from the VLAN's own DHCP server, and keeps their
// leases.
//
// Each command has a file: it reads flags, calls the keeper through package api
// and prints what it answers; serve is the keeper. main.go and app.go wire them,
// args.go reads the command line, exit.go turns errors into one line and an exit
// status.
package main
