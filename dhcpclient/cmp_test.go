// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"
)

// cmpAddrs lets cmp.Diff compare and show addresses.
var cmpAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
