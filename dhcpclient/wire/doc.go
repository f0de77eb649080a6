// SPDX-License-Identifier: Apache-2.0

// Package wire has the Linux sockets that dhcpclient runs on: AF_PACKET for
// DHCP and ARP on one link, UDP for renewals from an address that is configured.
// Each has a BPF filter attached before the first frame can reach it, so that
// nothing but the traffic it is for wakes the process.
//
// The work enters at ListenPacket, ListenUDP, ListenARP and ListenClaims. Call
// them on a thread that is in the link's network namespace; what they return is
// good on any thread and belongs to one goroutine at a time, except Close. The
// package imports dhcpclient for its interfaces and decoder, and only programs
// that put a Client on a real link need it.
package wire

import "mvdhcp/dhcpclient"

var (
	_ dhcpclient.Conn      = (*PacketConn)(nil)
	_ dhcpclient.Conn      = (*UDPConn)(nil)
	_ dhcpclient.ARPConn   = (*ARPConn)(nil)
	_ dhcpclient.ClaimConn = (*ClaimConn)(nil)
)
