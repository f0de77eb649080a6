// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"fmt"
	"net/netip"
)

// ParseServers reads the addresses of servers, as Params takes them.
func ParseServers(texts []string) ([]netip.Addr, error) {
	var as []netip.Addr
	for _, s := range texts {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("server %q: not an address", s)
		}
		as = append(as, a)
	}
	return as, nil
}
