// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestSetModeAndAlias(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	must(t, h.SetMode(ns, c, Private))
	must(t, h.SetMode(ns, c, Private))
	must(t, h.SetAlias(ns, c, "other"))
	l := linkNamed(t, handle(t, ns), "eth0").(*netlink.Macvlan)
	if l.Mode != netlink.MACVLAN_MODE_PRIVATE || l.Attrs().Alias != "other" {
		t.Errorf("mode %v, alias %q", l.Mode, l.Attrs().Alias)
	}
	must(t, h.SetAlias(ns, c, ""))
	if l := linkNamed(t, handle(t, ns), "eth0"); l.Attrs().Alias != "" {
		t.Errorf("alias %q", l.Attrs().Alias)
	}
	if err := h.SetMode(ns, c, "x"); !errors.Is(err, ErrInvalid) {
		t.Error("mode x:", err)
	}
}

func TestFindChild(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, ns)
	must(t, nh.LinkSetDown(linkNamed(t, nh, "eth0"))) // before Linux 6.2, only then it can be renamed
	must(t, nh.LinkSetName(linkNamed(t, nh, "eth0"), "lan0"))
	want := c
	want.Name = "lan0"

	for _, asked := range []Child{c, {Name: "eth0", Index: 4711, MAC: c.MAC, NSID: -1}, {Name: "eth0", Index: 1, MAC: c.MAC, NSID: 3}} {
		got, err := h.FindChild(ns, asked)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, asked := range []Child{{Name: "eth0", Index: c.Index, MAC: mac(99)}, {Name: "lo", Index: 1, MAC: make([]byte, 6)}} {
		if _, err := h.FindChild(ns, asked); !errors.Is(err, ErrGone) {
			t.Errorf("FindChild(%v): %v", asked, err)
		}
	}
}

func TestDeleteChild(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	there := func() bool { _, err := h.FindChild(ns, c); return err == nil }

	must(t, h.DeleteChild(ns, Child{Name: "eth0", Index: c.Index, MAC: mac(2)}))
	must(t, h.DeleteChild(ns, Child{Name: "eth0", Index: c.Index + 1, MAC: c.MAC}))
	must(t, h.DeleteChildNSID(Child{Name: "eth0", Index: c.Index, MAC: mac(2), NSID: c.NSID}))
	must(t, h.DeleteChildNSID(Child{Name: "eth0", Index: c.Index, MAC: c.MAC, NSID: 4711})) // no namespace has this id
	if !there() {
		t.Fatal("deleted though index or MAC or namespace didn't match")
	}
	must(t, h.DeleteChild(ns, c))
	if there() {
		t.Error("still there")
	}
	must(t, h.DeleteChild(ns, c))

	c, err := h.CreateChild(context.Background(), ns, h.spec(1))
	must(t, err)
	must(t, h.DeleteChildNSID(c))
	if there() {
		t.Error("still there")
	}
	must(t, h.DeleteChildNSID(c))
	c.NSID = -1
	if err := h.DeleteChildNSID(c); !errors.Is(err, ErrGone) {
		t.Error("without an id:", err)
	}
}

func TestGone(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	must(t, h.DeleteChild(ns, c))
	_, neighbourErr := h.Neighbour(ns, c, addr("10.9.0.1"))
	_, hasErr := h.HasAddress(ns, c, prefix("10.9.0.2/24"))
	for name, err := range map[string]error{
		"SetMode":     h.SetMode(ns, c, Bridge),
		"SetAlias":    h.SetAlias(ns, c, "x"),
		"Apply":       h.Apply(ns, c, Config{Address: prefix("10.9.0.2/24"), Lifetime: time.Minute}),
		"Unconfigure": h.Unconfigure(ns, c),
		"Neighbour":   neighbourErr,
		"HasAddress":  hasErr,
	} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChildren(t *testing.T) {
	h, other := newHost(t), newHost(t)
	ns, c := h.child(t, 1)
	spec := other.spec(2)
	spec.Name = "eth1"
	_, err := other.CreateChild(context.Background(), ns, spec)
	must(t, err)
	spec = h.spec(3)
	spec.Name, spec.Alias = "eth2", "something else"
	_, err = h.CreateChild(context.Background(), ns, spec)
	must(t, err)
	must(t, h.Apply(ns, c, Config{Address: prefix("10.9.0.2/24"), Lifetime: Forever}))
	nh := handle(t, ns)
	must(t, nh.AddrAdd(linkNamed(t, nh, "eth0"), mustAddr(t, "10.77.0.1/16")))

	got, err := h.Children(ns, "mvdhcp:")
	must(t, err)
	want := []FoundChild{{Child: c, Alias: "mvdhcp:test1", Addresses: []FoundAddress{
		{Prefix: prefix("10.9.0.2/24"), Lifetime: Forever, Ours: true},
		{Prefix: prefix("10.77.0.1/16"), Lifetime: Forever},
	}}}
	if diff := cmp.Diff(want, got, comparePrefixes); diff != "" {
		t.Error(diff)
	}
	if got, err := h.Children(newTestNS(t), ""); err != nil || got != nil {
		t.Error("in an empty namespace:", got, err)
	}
}

func TestHostHas(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	must(t, nh.AddrAdd(linkNamed(t, nh, "p0"), mustAddr(t, "10.9.0.7/24")))
	must(t, nh.LinkSetDown(linkNamed(t, nh, "p0"))) // held all the same
	for ip, want := range map[string]string{"10.9.0.7": "p0", "10.9.0.8": "", "::ffff:10.9.0.7": "p0"} {
		ifname, ok, err := h.HostHas(addr(ip))
		if err != nil || ok != (want != "") || ifname != want {
			t.Errorf("HostHas(%s): %q, %v, %v", ip, ifname, ok, err)
		}
	}
}

// TestDeleteFreesMAC gives a MAC to another child as soon as the one that had it
// is deleted.
func TestDeleteFreesMAC(t *testing.T) {
	h := newHost(t)
	other := newTestNS(t)
	for range 20 {
		ns, c := h.child(t, 1)
		must(t, h.DeleteChild(ns, c))
		if err := h.createOnce(other, h.spec(1), "eth0"); err != nil {
			t.Fatalf("its MAC is not free: %v", err)
		}
		nh := handle(t, other)
		must(t, nh.LinkDel(linkNamed(t, nh, "eth0")))
	}
}
