// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestMade: a parent that is missing is made on attach, on a host where no VLAN
// was ever used, and goes with its last user.
func TestMade(t *testing.T) {
	unload(t, "8021q")
	l, k := newLAN(t), newKeeper(t)
	for _, ns := range []string{"a", "b", "c"} {
		l.namespace(ns)
	}
	a := k.attach("a", "ens192.100")
	l.granted("a", 100, a)
	made(t, "ens192.100", 100)
	if a.Parent != "ens192.100" || a.Gateway != "172.10.100.1" || a.Server != "172.10.100.1" {
		t.Errorf("the lease has parent %s, gateway %s, server %s; want ens192.100, 172.10.100.1 twice",
			a.Parent, a.Gateway, a.Server)
	}
	b := k.attach("b", "ens192.101")
	l.granted("b", 101, b)
	made(t, "ens192.101", 101)
	c := k.attach("c", "ens192.100")
	l.granted("c", 100, c)

	k.detach("a")
	l.servers[100].freed(a.MAC)
	bare(t, "a")
	made(t, "ens192.100", 100) // c uses it
	l.granted("c", 100, c)
	k.detach("c")
	l.servers[100].freed(c.MAC)
	absent(t, "ens192.100")
	made(t, "ens192.101", 101) // b uses it
	l.granted("b", 101, b)
	k.detach("b")
	l.servers[101].freed(b.MAC)
	absent(t, "ens192.101")
	if list := k.leases(); len(list) != 0 {
		t.Errorf("left are the leases %+v", list)
	}
}

// TestMadeOutlivesKeeper: a new keeper knows which parent the old one made.
func TestMadeOutlivesKeeper(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	a := k.attach("a", "ens192.100")
	k.stop(syscall.SIGKILL)
	l.granted("a", 100, a)
	k.start()
	l.granted("a", 100, a)
	k.detach("a")
	l.servers[100].freed(a.MAC)
	absent(t, "ens192.100")
}

// TestNamespaceDies: the lease of a namespace that dies without a word is given
// back through the VLAN, and the parent that was made for it goes.
func TestNamespaceDies(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	a := k.attach("a", "ens192.100")
	l.granted("a", 100, a)
	ip(t, "netns del a")
	l.servers[100].freed(a.MAC)
	absent(t, "ens192.100")
}

// TestKept: a VLAN link that somebody else made stays when its last user goes.
func TestKept(t *testing.T) {
	for _, c := range []struct{ test, link, parent string }{
		{"same name", "ens192.100", "ens192.100"},
		{"another name", "vlan100", "vlan100"},
		{"another name, asked for by id", "vlan100", "ens192.100"},
	} {
		t.Run(c.test, func(t *testing.T) {
			l, k := newLAN(t), newKeeper(t)
			l.vlan(c.link, 100)
			l.namespace("a")
			got := k.attach("a", c.parent)
			l.granted("a", 100, got)
			before := links(t, "")
			if !slices.Contains(before[c.link].Flags, "UP") {
				t.Errorf("%s is not up: %v", c.link, before[c.link].Flags)
			}
			if c.link != "ens192.100" {
				absent(t, "ens192.100")
			}
			k.detach("a")
			l.servers[100].freed(got.MAC)
			after := links(t, "")[c.link]
			if after.Info.Kind != "vlan" || after.Alias != "" {
				t.Errorf("%s is a %q with alias %q after detach, want the vlan as it was",
					c.link, after.Info.Kind, after.Alias)
			}
		})
	}
}

// TestRefused: what can't be a VLAN of the trunk is refused in one line, with
// nothing left behind.
func TestRefused(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	before := names(t)
	for _, c := range []struct {
		parent string
		status int
	}{
		{"ens192.0", 2},
		{"ens192.4095", 2},
		{"ens192.99999", 2},
		{"nosuch.100", 1},
		{"ens192.4094", 3}, // a VLAN without a server
	} {
		t.Run(c.parent, func(t *testing.T) {
			got := k.do("attach", "netns:a", "--parent", c.parent, "--timeout", "3s")
			if got.status != c.status {
				t.Errorf("status %d, want %d: %s", got.status, c.status, got.stderr)
			}
			if got.stderr == "" || strings.Contains(got.stderr, "\n") {
				t.Errorf("want one line on standard error, have %q", got.stderr)
			}
			if !strings.Contains(got.stderr, c.parent) {
				t.Errorf("the error does not name %s: %s", c.parent, got.stderr)
			}
			bare(t, "a")
		})
	}
	if list := k.leases(); len(list) != 0 {
		t.Errorf("left are the leases %+v", list)
	}
	if after := names(t); !slices.Equal(before, after) {
		t.Errorf("the host had the links %v, and has %v", before, after)
	}
}

// made checks that a parent is the VLAN it should be, up, and marked as ours.
func made(t *testing.T, name string, vid int) {
	t.Helper()
	madeOn(t, nic, name, vid)
}

func madeOn(t *testing.T, trunk, name string, vid int) {
	t.Helper()
	p := links(t, "")[name]
	if p.Info.Kind != "vlan" || p.Info.Data.Protocol != "802.1Q" || p.Info.Data.ID != vid || p.Link != trunk {
		t.Errorf("%s is a %q of %s with id %d on %q, want a vlan of 802.1Q with %d on %s",
			name, p.Info.Kind, p.Info.Data.Protocol, p.Info.Data.ID, p.Link, vid, trunk)
	}
	if !slices.Contains(p.Flags, "UP") {
		t.Errorf("%s is not up: %v", name, p.Flags)
	}
	if !strings.Contains(p.Alias, "mvdhcp") {
		t.Errorf("the alias of %s is %q, want a mark of mvdhcp", name, p.Alias)
	}
}

func names(t *testing.T) []string {
	t.Helper()
	var list []string
	for name := range links(t, "") {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
