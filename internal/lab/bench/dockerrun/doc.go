// SPDX-License-Identifier: Apache-2.0

// Dockerrun compares `docker run` on networks of mvdhcp's IPAM plugin with one of
// the engine's own macvlan driver and static IPAM, on one engine and one LAN, in
// turns. `make bench` runs it, as root.
//
// What is measured is the whole command, from its start to the container's end:
// address, interface, a program that ends at once, and the address's release.
package main
