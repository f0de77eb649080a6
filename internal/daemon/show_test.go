// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"testing"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
)

// TestAddressShown: leases and events show the address that the interface has,
// which is a /32 on the host's own.
func TestAddressShown(t *testing.T) {
	for kind, want := range map[lease.TargetKind]string{lease.TargetNetNS: "10.0.0.61/24", lease.TargetHost: "10.0.0.61/32"} {
		r := lease.Record{ID: "7f", Target: lease.Target{Kind: kind}, State: lease.Bound, Binding: &dhcpclient.Binding{
			Address: netip.MustParsePrefix("10.0.0.61/24"), Server: netip.MustParseAddr("10.0.0.1"), Lease: time.Hour,
		}}
		if got := leaseOf(lease.View{Record: r}).Address; got != want {
			t.Errorf("lease of %s: %s, want %s", kind, got, want)
		}
		if got := eventOf(lease.Event{Record: r}).Address; got != want {
			t.Errorf("event of %s: %s, want %s", kind, got, want)
		}
	}
}
