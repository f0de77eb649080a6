// SPDX-License-Identifier: Apache-2.0

// Package provision is the kernel side: parents, macvlan children, network
// namespaces, addresses, routes, MTU, and the rtnetlink events that tell when
// any of them changes. It knows no DHCP and imports nothing of this module.
//
// The work enters at Kernel (what is done) and Watcher (what happens by
// itself). A Namespace is a name that can be stored; an NS is one that is open,
// and is closed again before its user goes idle, since an open one keeps a dead
// container's children alive.
package provision
