// SPDX-License-Identifier: Apache-2.0

// Package dhcpclient is the client side of DHCPv4 (RFC 2131): it runs one
// exchange at a time over a Conn that its caller hands in, and returns what the
// server granted as a Binding.
//
// The work enters at Client: Acquire (INIT to BOUND), Reboot (INIT-REBOOT),
// Renew, Rebind, Release, Decline and Discover. The package starts no goroutine
// that outlives a call, keeps no state between calls, and knows no netlink, no
// namespaces and no files; package wire has the sockets. Any package may import
// it; it imports nothing of this module.
package dhcpclient
