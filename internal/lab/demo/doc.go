// SPDX-License-Identifier: Apache-2.0

// Demo shows mvdhcp at work in about ten seconds, on a machine with nothing but
// Go and root: a LAN of network namespaces with a DHCP server whose leases last
// seconds, a keeper, two namespaces that get addresses, a renewal, and the way
// back. It changes nothing on the machine and leaves nothing on it. Run it with
// `make demo`.
//
// What it says of leases it reads from the DHCP server and from the wire.
package main
