// SPDX-License-Identifier: Apache-2.0

// Package lease owns the leases of a host: the record each one is, the store
// the records live in, and the Keeper that takes them through RFC 2131's states
// by driving dhcpclient (the protocol) and provision (the kernel).
//
// The work enters at Keeper: Run resumes what the store holds and keeps it;
// Attach, Detach, Renew and Release are what people ask for; Observe takes the
// kernel's events. A lease at rest is a Record and a place in one heap of due
// times; it owns no goroutine, thread or descriptor. Everything outside is
// reached through Host, Clock and Store, which a simulation replaces.
package lease
