// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"net"
	"net/netip"
	"time"
)

// Infinite is the lease time that means "for ever" (RFC 2131, 3.3: 0xffffffff).
const Infinite = time.Duration(0xffffffff) * time.Second

// Binding is what one DHCPACK granted, validated. It is a value: copies share
// nothing that anybody writes to.
type Binding struct {
	// Address is the leased address with the prefix length of option 1 (the
	// class's mask where the server sent none).
	Address netip.Prefix `json:"address"`
	// Server is the server identifier (option 54).
	Server netip.Addr `json:"server"`
	// NextHopMAC is the link-layer source of the reply, the way back to the
	// server. Empty when it was not seen.
	NextHopMAC net.HardwareAddr `json:"next_hop_mac,omitempty"`
	// Router is the first usable router of option 3, or the default route of
	// option 121 where that option is present (RFC 3442). Zero when none.
	Router netip.Addr `json:"router,omitzero"`
	// Routes are the routes beside the default one: option 121, else option 33.
	Routes []Route      `json:"routes,omitempty"`
	DNS    []netip.Addr `json:"dns,omitempty"`    // option 6
	Domain string       `json:"domain,omitempty"` // option 15
	Search []string     `json:"search,omitempty"` // option 119
	NTP    []netip.Addr `json:"ntp,omitempty"`    // option 42
	// MTU is option 26, 0 when absent or below 576.
	MTU int `json:"mtu,omitempty"`
	// Lease, T1 and T2 count from the moment the acknowledged REQUEST was sent
	// (RFC 2131, 4.4.1), with 0 < T1 < T2 < Lease. Lease is Infinite for a
	// lease without end, and T1 and T2 mean nothing then.
	Lease time.Duration `json:"lease"`
	T1    time.Duration `json:"t1"`
	T2    time.Duration `json:"t2"`
	// Hostname is what the server calls the client (option 12), "" when it
	// said nothing.
	Hostname string `json:"hostname,omitempty"`
	// Requested is when the acknowledged REQUEST was sent for the first time,
	// with a monotonic reading: what Lease, T1 and T2 count from. Zero in an
	// Offer.
	Requested time.Time `json:"-"`
}

// Route is one destination reached through a router. A zero Via means the
// destination is on the link itself (RFC 3442: router 0.0.0.0).
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"`
}
