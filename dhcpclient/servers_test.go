// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"net/netip"
	"slices"
	"testing"
)

func TestParseServers(t *testing.T) {
	got, err := ParseServers([]string{"192.0.2.1", "192.0.2.2"})
	if want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err := ParseServers(nil); got != nil || err != nil {
		t.Errorf("none: got %v, %v; want nil, nil", got, err)
	}
	if _, err := ParseServers([]string{"192.0.2.1", "router"}); err == nil || err.Error() != `server "router": not an address` {
		t.Errorf("got error %v", err)
	}
}
