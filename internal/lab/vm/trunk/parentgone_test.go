// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestParentDeleted: a VLAN goes with the children on it. One that we made comes
// back by itself, another's when its owner makes it, both with trunk and without;
// the children come back with their MACs and addresses.
func TestParentDeleted(t *testing.T) {
	for _, c := range []struct{ test, link string }{
		{"ours", ""},
		{"another's", nic + ".100"},
		{"another's, asked for by id", "vlan100"},
	} {
		t.Run(c.test, func(t *testing.T) {
			l, k := newLAN(t), newKeeper(t)
			parent := nic + ".100"
			link := parent
			if c.link != "" {
				link = c.link
				l.vlan(link, 100)
			}
			l.namespace("a")
			l.namespace("b")
			a, b := k.attach("a", parent), k.attach("b", parent)
			back := func(what string) {
				t.Helper()
				await(t, what, func() bool {
					for ns, want := range map[string]lease{"a": a, "b": b} {
						got := links(t, ns)["eth0"]
						if got.MAC != want.MAC || !slices.ContainsFunc(got.ipv4(), func(s string) bool { return s+"/24" == want.Address }) {
							return false
						}
					}
					return true
				})
				k.await(what+": bound", func(ls []lease) bool {
					return len(ls) == 2 && !slices.ContainsFunc(ls, func(l lease) bool { return l.State != "bound" || l.ParentState != "up" })
				})
				l.granted("a", 100, a)
				l.granted("b", 100, b)
			}
			ip(t, "link del "+link)
			if c.link != "" {
				k.await("no parent", func(ls []lease) bool { return len(ls) == 2 && ls[0].ParentState == "missing" })
				absent(t, link)
				ip(t, fmt.Sprintf("link add link %s name %s type vlan id 100", nic, link)) // it comes back down
			}
			back("after the VLAN was deleted")

			ip(t, "link set "+nic+" down")
			k.await("down", func(ls []lease) bool { return len(ls) == 2 && ls[0].ParentState == "down" })
			ip(t, "link set "+nic+" up")
			if !slices.Contains(links(t, "")[link].Flags, "UP") { // the kernel took it down with its trunk
				ip(t, "link set "+link+" up")
			}
			back("after the trunk was down")

			if c.link == "" {
				replug(t)
				back("after the NIC was made anew")
			}
			ip(t, "netns del a")
			l.servers[100].freed(a.MAC)
			k.detach("b")
			l.servers[100].freed(b.MAC)
			if c.link == "" {
				absent(t, parent)
			}
		})
	}
}

// replug takes the NIC away, as a driver that is reloaded does, and makes it anew.
func replug(t *testing.T) {
	t.Helper()
	ip(t, "link del "+nic)
	batch(t, "", "link add "+nic+" type veth peer name trunk netns switch", "addr add 10.0.0.206/24 dev "+nic, "link set "+nic+" up")
	batch(t, "switch", "link set trunk master br0 up")
	var vlans []string
	for _, vid := range vids {
		vlans = append(vlans, fmt.Sprintf("vlan add dev trunk vid %d", vid))
	}
	runBatch(t, "bridge", "switch", vlans)
}

// await returns when ok does. Each look takes a process.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
