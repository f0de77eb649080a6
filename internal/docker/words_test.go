// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"mvdhcp/lease"
)

// What a user of the engine is told names options that the engine has.
func TestErrorsNameTheEnginesOptions(t *testing.T) {
	for said, want := range map[string]string{
		"MAC 02:00:00:00:00:77 is in use by docker:lan/a: give another --mac":                          "give the container another --mac-address",
		"identity a is attached to docker:a as eth0: detach it first, or give --identity another name": "give another --driver-opt identity=NAME",
		"MAC 02:00:00:00:00:77 is kept for docker:lan/a: release that first, or give another --mac":    "give the container another --mac-address",
	} {
		err := fmt.Errorf("%w: %s", lease.ErrAttached, said)
		for _, got := range []error{explain(Network{Parent: "ens192"}, err), (&endpoint{pool: Pool{Parent: "ens192"}}).explain(err)} {
			if !strings.HasPrefix(got.Error(), "no lease ") || !strings.HasSuffix(got.Error(), want) {
				t.Errorf("%q, want %q at its end", got, want)
			}
		}
	}
}

// A subnet of another VLAN is not taken for a server that names no router.
func TestGatewayOfAnotherSubnet(t *testing.T) {
	p := &Plugin{Discover: func(context.Context, Pool) (netip.Prefix, netip.Addr, error) {
		return netip.MustParsePrefix("10.77.2.0/24"), netip.MustParseAddr("10.77.2.1"), nil
	}}
	_, err := p.gateway(t.Context(), Pool{Parent: "ens192", Subnet: netip.MustParsePrefix("10.9.2.0/24")}, netip.Addr{})
	if err == nil || !strings.Contains(err.Error(), "serves 10.77.2.0/24, which is not --subnet 10.9.2.0/24") {
		t.Error(err)
	}
}
