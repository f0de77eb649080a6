// SPDX-License-Identifier: Apache-2.0

// Package probe asks a network who serves DHCP on it, without taking a lease.
// daemon and doctor import it; the work enters at FromChild and FromParent.
package probe
