// SPDX-License-Identifier: Apache-2.0

// Bench compares ways to put a namespace on a LAN that has 100 children on it
// already, with dnsmasq as the server. Run it with `make bench`, as root.
//
// The ways take turns, so that whatever else the machine does hits all alike.
// The floor is what the work itself costs: netlink calls and a bare exchange in
// one process, which stores nothing. Inside the keeper means a keeper in that same
// process, called as the API calls it; asked over its socket, and by the command,
// is a `mvdhcp serve`. Each of the two has half of the children. What an attach leaves for later (closing packet sockets, probing
// for conflicts) counts for none of them; the pause after each lets it pass.
package main
