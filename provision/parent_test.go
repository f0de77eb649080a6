// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func TestEnsureParent(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	p0 := linkNamed(t, nh, "p0")
	must(t, nh.LinkSetDown(p0))
	p, err := h.Parent("p0")
	must(t, err)
	want := Parent{Name: "p0", Index: p0.Attrs().Index, MAC: p0.Attrs().HardwareAddr, MTU: 1500}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	p, made, err := h.EnsureParent("p0")
	must(t, err)
	want.Up = true
	want.Carrier = p.Carrier // comes a moment later
	if diff := cmp.Diff(want, p); diff != "" || made {
		t.Error(made, diff)
	}
	eventually(t, "carrier", func() bool { p, err := h.Parent("p0"); return err == nil && p.Carrier })
}

func TestEnsureParentRefuses(t *testing.T) {
	h := newHost(t)
	nh := handle(t, h.ns)
	add := func(l netlink.Link) netlink.Link {
		t.Helper()
		must(t, nh.LinkAdd(l))
		return linkNamed(t, nh, l.Attrs().Name)
	}
	veth := func(name string) netlink.Link {
		return add(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-w", PeerNamespace: netlink.NsFd(h.wire.FD())})
	}
	br := add(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	port := veth("port")
	must(t, nh.LinkSetMaster(port, br))
	veth("p0.7")
	veth("dot.8")
	veth("wl")
	add(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "mv", ParentIndex: h.parent.Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	h.sysfs = t.TempDir()
	must(t, os.MkdirAll(filepath.Join(h.sysfs, "class/net/wl/phy80211"), 0o755))

	for name, tt := range map[string]struct {
		want error
		says string
	}{
		"":                 {ErrInvalid, "no interface name"},
		"..":               {ErrInvalid, "no interface name"},
		"a-name-of-16-byt": {ErrInvalid, "at most 15"},
		"a/b":              {ErrInvalid, "slash"},
		"a b":              {ErrInvalid, "space"},
		"a\x00b":           {ErrInvalid, "NUL"},
		"none":             {ErrGone, "no such interface"},
		"none.5":           {ErrGone, "no interface none to make VLAN 5 on"},
		"none.x5":          {ErrGone, "no such interface"},
		"p0.0":             {ErrInvalid, "between 1 and 4094"},
		"p0.4095":          {ErrInvalid, "between 1 and 4094"},
		"p0.99999999999":   {ErrInvalid, "between 1 and 4094"},
		"lo":               {ErrInvalid, "loopback"},
		"lo.5":             {ErrInvalid, "loopback"},
		"port":             {ErrInvalid, "port of bridge br0"},
		"mv":               {ErrInvalid, "name p0 as parent"},
		"mv.5":             {ErrInvalid, "name p0 as parent"},
		"wl":               {ErrInvalid, "wireless"},
		"wl.5":             {ErrInvalid, "wireless"},
		"p0.7":             {ErrInvalid, "exists, but is a veth link, not VLAN 7 on p0"},
		"dot.8":            {nil, ""},
		"br0":              {nil, ""},
	} {
		before, err := h.Names(h.ns)
		must(t, err)
		_, made, err := h.EnsureParent(name)
		if made || !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("EnsureParent(%q): made %v, %v", name, made, err)
		}
		after, err := h.Names(h.ns)
		must(t, err)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("EnsureParent(%q) left behind: %s", name, diff)
		}
	}
}

func TestCheckParent(t *testing.T) {
	h := newHost(t)
	for _, tt := range []struct {
		link link
		says string
	}{
		{link{typ: 1, master: 1, slaveKind: "bond"}, "member of bond lo"},
		{link{typ: 1, master: 1, slaveKind: "team"}, "member of team lo"},
		{link{typ: 1, master: 1, slaveKind: "openvswitch"}, "port of bridge lo"},
		{link{typ: 1, kind: "ipvlan", parentNSID: -1, parent: h.parent.Index}, "name p0 as parent"},
		{link{typ: 1, kind: "macvlan", parentNSID: 0, parent: h.parent.Index}, "name the interface it is on"},
		{link{typ: 65534, kind: "wireguard"}, "no Ethernet"},
		{link{typ: 1, master: 1, slaveKind: "vrf"}, ""},
		{link{typ: 1}, ""},
	} {
		tt.link.name = "x"
		err := h.checkParent(tt.link)
		if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%+v: %v", tt.link, err)
		}
	}
}

func TestParseVLAN(t *testing.T) {
	for name, want := range map[string]vlan{
		"eth0.100": {"eth0.100", "eth0", 100}, "a.10.20": {"a.10.20", "a.10", 20}, "e.4094": {"e.4094", "e", 4094}, "e.007": {"e.007", "e", 7},
		"eth0": {}, ".5": {}, "e.": {}, "e.-1": {}, "e.+1": {}, "e.1x": {},
	} {
		got, ok, err := parseVLAN(name)
		if err != nil || ok != (want.id != 0) || got != want {
			t.Errorf("parseVLAN(%s) = %+v, %v, %v", name, got, ok, err)
		}
	}
}

// has8021Q asks the kernel itself, by another road than the code under test.
func has8021Q(t *testing.T) bool {
	t.Helper()
	h := handle(t, newTestNS(t))
	must(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "b"}}))
	err := h.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "v", ParentIndex: linkNamed(t, h, "b").Attrs().Index}, VlanId: 9})
	if err != nil {
		t.Log("THIS KERNEL HAS NO 802.1Q: only the refusal is tested:", err)
	}
	return err == nil
}

func TestVLAN(t *testing.T) {
	h := newHost(t)
	if !has8021Q(t) {
		_, made, err := h.EnsureParent("p0.100")
		if made || !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "modprobe 8021q") {
			t.Error("EnsureParent:", made, err)
		}
		return
	}
	nh := handle(t, h.ns)
	must(t, nh.LinkSetDown(linkNamed(t, nh, "p0")))
	p, made, err := h.EnsureParent("p0.100")
	must(t, err)
	v := linkNamed(t, nh, "p0.100").(*netlink.Vlan)
	if !made || !p.Ours || !p.Up || p.Name != "p0.100" || v.VlanId != 100 || v.ParentIndex != h.parent.Index || v.Alias != ParentAlias {
		t.Errorf("made %v, %+v, link %+v", made, p, v)
	}
	if linkNamed(t, nh, "p0").Attrs().Flags&net.FlagUp == 0 {
		t.Error("the trunk is down")
	}
	if again, made, err := h.EnsureParent("p0.100"); err != nil || made || again.Index != p.Index || !again.Ours {
		t.Errorf("again: %+v, %v, %v", again, made, err)
	}

	// With a child on it, it stays.
	ns := newTestNS(t)
	spec := h.spec(1)
	spec.Parent = p
	c, err := h.CreateChild(context.Background(), ns, spec)
	must(t, err)
	if err := h.RemoveParent("p0.100"); !errors.Is(err, ErrBusy) {
		t.Error("RemoveParent with a child:", err)
	}
	must(t, h.DeleteChild(ns, c))
	must(t, h.RemoveParent("p0.100"))
	must(t, h.RemoveParent("p0.100"))
	if names, _ := h.Names(h.ns); fmt.Sprint(names) != "[lo p0]" {
		t.Error("links left:", names)
	}

	// One under another name is used, and stays.
	must(t, nh.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "office", ParentIndex: h.parent.Index}, VlanId: 100}))
	if p, made, err := h.EnsureParent("p0.100"); err != nil || made || p.Name != "office" || p.Ours || !p.Up {
		t.Errorf("other name: %+v, %v, %v", p, made, err)
	}
	must(t, h.RemoveParent("office"))
	linkNamed(t, nh, "office")
	must(t, nh.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "p0.200", ParentIndex: h.parent.Index}, VlanId: 201}))
	if _, _, err := h.EnsureParent("p0.200"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "a link for VLAN 201 on p0, not VLAN 200 on p0") {
		t.Error("other id:", err)
	}
}

// RemoveParent needs no VLAN to be tested: only the alias tells whose it is.
func TestRemoveParent(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, h.ns)
	p0 := linkNamed(t, nh, "p0")
	must(t, h.RemoveParent("p0"))
	must(t, nh.LinkSetAlias(linkNamed(t, nh, "p0"), ParentAlias))
	if err := h.RemoveParent("p0"); !errors.Is(err, ErrBusy) {
		t.Error("with a child in another namespace:", err)
	}
	if names, _ := h.Names(h.ns); fmt.Sprint(names) != "[lo p0]" {
		t.Error("links are", names)
	}
	must(t, h.DeleteChild(ns, c))
	must(t, h.RemoveParent("p0"))
	if names, _ := h.Names(h.ns); fmt.Sprint(names) != "[lo]" {
		t.Error("links are", names, p0.Attrs().Name)
	}
}
