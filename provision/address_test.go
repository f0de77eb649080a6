// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What is put back after the kernel took it along is what it was.
func TestTakeOff(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	setSecondaries(t, ns, "0")
	nh := handle(t, ns)
	eth0 := linkNamed(t, nh, "eth0")
	must(t, nh.AddrAdd(eth0, mustAddr(t, "10.9.0.5/24")))
	kept := mustAddr(t, "10.9.0.6/24 eth0:x")
	kept.Flags, kept.ValidLft, kept.PreferedLft = unix.IFA_F_NOPREFIXROUTE, 2000, 1000
	kept.Broadcast = net.IPv4(10, 9, 0, 99)
	must(t, nh.AddrAdd(eth0, kept))
	must(t, inNS(ns, func(conn *conn) error {
		all, err := conn.addresses(c.Index)
		must(t, err)
		must(t, conn.takeOff(c.Index, all, all[:1]))
		left, err := conn.addresses(c.Index)
		must(t, err)
		want := all[1:]
		want[0].flags &^= unix.IFA_F_SECONDARY // it is the primary now
		opts := cmp.Options{cmp.AllowUnexported(address{}), comparePrefixes, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
		if len(left) == 1 && left[0].valid == want[0].valid-1 { // a second passed
			left[0].valid, left[0].preferred = want[0].valid, want[0].preferred
		}
		if diff := cmp.Diff(want, left, opts); diff != "" {
			t.Error(diff)
		}
		return nil
	}))
}
