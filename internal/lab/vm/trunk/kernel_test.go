// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"fmt"
	"net"
	"testing"
)

// TestLab proves the ground the other tests stand on: a macvlan on a VLAN
// sub-interface gets a lease from that VLAN's server and no other, by means that
// are not ours.
func TestLab(t *testing.T) {
	l := newLAN(t)
	for vid, other := range map[int]int{100: 101, 101: 100} {
		t.Run(fmt.Sprint(vid), func(t *testing.T) {
			parent := fmt.Sprintf("%s.%d", nic, vid)
			ip(t, fmt.Sprintf("link add link %s name %s type vlan id %d", nic, parent, vid))
			t.Cleanup(func() { ip(t, "link del "+parent) })
			ip(t, "link set "+parent+" up")
			ns := fmt.Sprintf("client%d", vid)
			(&lan{t: t}).namespace(ns)
			mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(vid)}.String()
			ip(t, fmt.Sprintf("link add link %s name eth0 netns %s address %s type macvlan mode bridge", parent, ns, mac))
			ip(t, "-n "+ns+" link set eth0 up")
			ip(t, "netns exec "+ns+" busybox udhcpc -i eth0 -f -q -n -t 60 -T 1 -s /bin/true")
			l.servers[vid].holds(mac, network[vid])
			if a := l.servers[other].lease(mac); a != "" {
				t.Errorf("the server of VLAN %d gave %s to a client on VLAN %d", other, a, vid)
			}
		})
	}
}
