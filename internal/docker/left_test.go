// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
)

func mac(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func granted(addr string) *dhcpclient.Binding {
	return &dhcpclient.Binding{Address: netip.MustParsePrefix(addr), Lease: time.Hour, T1: 30 * time.Minute, T2: 50 * time.Minute}
}

// TestLeaseWithoutLink: a lease for which the network driver can't make the link
// is still looked after, and released when its container never comes.
func TestLeaseWithoutLink(t *testing.T) {
	m := mac(t, "02:42:00:00:00:01")
	r := lease.Record{
		ID: "l1", State: lease.Kept, Spec: lease.Spec{Parent: "up0", MAC: m, Identity: "docker:x"}, Binding: granted("10.0.0.5/16"),
		Pool: &lease.Pool{ID: "p", Answered: netip.MustParseAddr("10.0.0.5")},
	}
	p := newDeafPlugin(t, r)
	p.open()
	p.mover.await(r.ID, m)
	req := &endpointRequest{NetworkID: "n", EndpointID: "0123456789abcdef"}
	req.Interface.Address = "10.0.0.5/16"
	if err := p.driver.give(t.Context(), Network{ID: "n", Parent: "up0"}, endpointOptions{}, req, m); err == nil {
		t.Fatal("a link was made on a host that makes none")
	}
	if _, ok := p.mover.waiting[m.String()]; !ok {
		t.Error("the lease is not waited for any more")
	}
}
