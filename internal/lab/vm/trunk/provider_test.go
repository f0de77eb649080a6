// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"fmt"
	"slices"
	"testing"
)

// TestProviderVLAN: a service VLAN (802.1ad) that was made by hand is a parent,
// and so are VLANs on it, those made by hand and those made for an attach.
func TestProviderVLAN(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	// What comes in service VLAN 300 belongs to VLAN 101, in its customer VLAN 100
	// to VLAN 100, and in VLAN 300 of 802.1Q to VLAN 100 too.
	batch(t, "", "link add cust0 type veth peer name edge0 netns switch", "link set cust0 up")
	t.Cleanup(func() { ip(t, "link del cust0") })
	batch(t, "switch",
		"link set edge0 up",
		"link add link edge0 name s300 type vlan proto 802.1ad id 300",
		"link add link edge0 name c300 type vlan id 300",
		"link add link s300 name s300.100 type vlan id 100",
		"link set s300 master br0 up", "link set c300 master br0 up", "link set s300.100 master br0 up")
	runBatch(t, "bridge", "switch", []string{
		"vlan add dev s300 vid 101 pvid untagged",
		"vlan add dev c300 vid 100 pvid untagged",
		"vlan add dev s300.100 vid 100 pvid untagged",
	})
	service := []string{"link add link cust0 name sv300 type vlan proto 802.1ad id 300"}
	batch(t, "", service...)
	for _, ns := range []string{"a", "b", "c"} {
		l.namespace(ns)
	}

	a, b := k.attach("a", "sv300"), k.attach("b", "sv300.100")
	l.granted("a", 101, a)
	l.granted("b", 100, b)
	madeOn(t, "sv300", "sv300.100", 100)

	t.Run("the same id of 802.1Q is another VLAN", func(t *testing.T) {
		l := newLAN(t)
		c := k.attach("c", "cust0.300")
		l.granted("c", 100, c)
		madeOn(t, "cust0", "cust0.300", 300)
		k.detach("c")
		l.servers[100].freed(c.MAC)
		absent(t, "cust0.300")
	})

	t.Run("deleted and made again", func(t *testing.T) {
		l := newLAN(t)
		wires := map[string]*frames{"a": capture(t, "server101"), "b": capture(t, "server100")}
		ip(t, "link del sv300")
		k.await("no parent", func(all []lease) bool {
			return !slices.ContainsFunc(all, func(l lease) bool { return l.ParentState != "missing" })
		})
		batch(t, "", service...)
		k.await("both are bound again", func(all []lease) bool { return len(all) == 2 && bound(all) })
		l.granted("a", 101, a)
		l.granted("b", 100, b)
		wires["a"].verified(a.MAC, a.Address)
		wires["b"].verified(b.MAC, b.Address)
		madeOn(t, "sv300", "sv300.100", 100)
	})

	k.detach("b")
	l.servers[100].freed(b.MAC)
	absent(t, "sv300.100")

	ip(t, "link add link sv300 name cv100 type vlan id 100")
	for _, parent := range []string{"cv100", "sv300.100"} {
		t.Run(fmt.Sprintf("customer VLAN made by hand, asked for as %s", parent), func(t *testing.T) {
			l := newLAN(t)
			b := k.attach("b", parent)
			l.granted("b", 100, b)
			absent(t, "sv300.100")
			k.detach("b")
			l.servers[100].freed(b.MAC)
		})
	}
	k.detach("a")
	l.servers[101].freed(a.MAC)
	left := links(t, "")
	for name, proto := range map[string]string{"sv300": "802.1ad", "cv100": "802.1Q"} {
		if got := left[name]; got.Info.Data.Protocol != proto || got.Alias != "" {
			t.Errorf("%s is a %q of %q with alias %q, want it as it was made", name, got.Info.Kind, got.Info.Data.Protocol, got.Alias)
		}
	}
}

// bound says whether all leases are, on parents that are up.
func bound(all []lease) bool {
	return !slices.ContainsFunc(all, func(l lease) bool { return l.State != "bound" || l.ParentState != "up" })
}
