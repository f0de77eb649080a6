// SPDX-License-Identifier: Apache-2.0

// Package lab builds LANs and hosts from network namespaces, with real DHCP
// servers on them, for tests, the demo and the benchmark. What a test asserts,
// it reads from the kernel, from a capture or from the server's lease file.
//
// The work enters at [New] in a test and at [Run] in a program; both give a
// [Lab] with one LAN. [Lab.Host] is a machine with an uplink on it,
// [Lab.Container] a namespace that something can be attached to, [Lab.Dnsmasq]
// and its like are servers, [NS.Capture] listens, [Lab.Keeper] runs the mvdhcp
// under test. Methods that can't do their work end the test.
//
// Nothing stays behind: not after a failure, Ctrl-C or SIGKILL. Every namespace
// and directory carries its process's id and start time in its name; every
// process of a lab lives in one of its namespaces, has the lab's name in its
// environment or comes from one that does. A watchdog, which outlives the
// process, removes all that carries the name; each new lab does the same for
// those whose watchdog is dead too.
//
// Needs root. Only tests and the programs below this folder import it; any
// program that does turns into the watchdog when [watchdogEnv] is set.
package lab
