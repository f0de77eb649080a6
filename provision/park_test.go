// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func TestPark(t *testing.T) {
	h := newHost(t)
	ns := newTestNS(t)
	c, err := h.CreateChild(t.Context(), ns, ChildSpec{Parent: h.parent, Name: "mv1", MAC: mac(1), Mode: Private, Alias: "ours 1"})
	must(t, err)
	must(t, h.Apply(ns, c, Config{Address: prefix("10.9.0.5/24"), Lifetime: time.Minute}))
	p, err := h.Park(ns, c, 1400)
	must(t, err)
	l := linkNamed(t, handle(t, h.ns), "mv1").(*netlink.Macvlan)
	if a := l.Attrs(); a.Flags&net.FlagUp != 0 || a.MTU != 1400 || a.HardwareAddr.String() != c.MAC.String() || a.Alias != "ours 1" || a.Index != p.Index || l.Mode != netlink.MACVLAN_MODE_PRIVATE {
		t.Errorf("parked %+v", l)
	}
	if _, err := h.FindChild(ns, c); !errors.Is(err, ErrGone) {
		t.Error("still in its namespace:", err)
	}
	addrs, routes := has(t, h.ns, "mv1")
	if len(addrs)+len(routes) > 0 {
		t.Error("host has", addrs, routes)
	}
	must(t, h.DeleteParked("mv1", "theirs"))
	linkNamed(t, handle(t, h.ns), "mv1")
	must(t, h.DeleteParked("mv1", "ours "))
	must(t, h.DeleteParked("mv1", "ours "))
	must(t, h.DeleteParked("p0", "")) // no macvlan
	if _, err := h.Park(ns, c, 0); !errors.Is(err, ErrGone) {
		t.Error("parked what is gone:", err)
	}
	linkNamed(t, handle(t, h.ns), "p0")
}

func TestCreateParked(t *testing.T) {
	h := newHost(t)
	spec := ChildSpec{Parent: h.parent, Name: "mv2", MAC: mac(2), Mode: VEPA, Alias: "ours 2"}
	p, err := h.CreateParked(spec, 9000)
	must(t, err)
	l := linkNamed(t, handle(t, h.ns), "mv2").(*netlink.Macvlan)
	if a := l.Attrs(); a.Flags&net.FlagUp != 0 || a.MTU != 1500 || a.Alias != "ours 2" || a.Index != p.Index || l.Mode != netlink.MACVLAN_MODE_VEPA {
		t.Errorf("made %+v", l)
	}
	if _, err := h.CreateParked(spec, 0); !errors.Is(err, ErrBusy) {
		t.Error("made twice:", err)
	}
	spec.Name = ""
	if _, err := h.CreateParked(spec, 0); !errors.Is(err, ErrInvalid) {
		t.Error("made without a name:", err)
	}
}

// A child that can't be read once it is made does not stay.
func TestCreateParkedUnread(t *testing.T) {
	h := newHost(t)
	native := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.RTM_NEWLINK)) // BPF loads in network byte order
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // struct nlmsghdr, nlmsg_type
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(native), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 0xffffffff},
	})
	must(t, err)
	raw := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		raw[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	must(t, unix.SetsockoptSockFprog(h.conn.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}))
	spec := ChildSpec{Parent: h.parent, Name: "mv3", MAC: mac(3), Mode: Bridge, Alias: "ours 3"}
	if _, err := h.CreateParked(spec, 0); !errors.Is(err, ErrGone) {
		t.Error("made and read:", err)
	}
	names, err := h.Names(h.ns)
	must(t, err)
	if slices.Contains(names, "mv3") {
		t.Error("it stays:", names)
	}
}

// TestShared puts a Shared child's routes in where an engine has put its own.
func TestShared(t *testing.T) {
	h := newHost(t)
	ns, c := h.child(t, 1)
	nh := handle(t, ns)
	link := linkNamed(t, nh, "eth0")
	must(t, nh.AddrAdd(link, mustAddr(t, "10.9.0.5/24")))
	theirs := func(dst, via string) {
		t.Helper()
		r := &netlink.Route{LinkIndex: c.Index, Gw: net.ParseIP(via), Protocol: unix.RTPROT_BOOT}
		if dst != "" {
			r.Dst = mustAddr(t, dst).IPNet
		}
		must(t, nh.RouteAdd(r))
	}
	theirs("", "10.9.0.1")
	theirs("10.77.0.0/16", "10.9.0.2")
	theirs("10.78.0.0/16", "10.9.0.2")
	cfg := Config{
		Address: prefix("10.9.0.5/24"), Lifetime: time.Hour, Router: addr("10.9.0.1"), Shared: true,
		Routes: []Route{{prefix("10.77.0.0/16"), addr("10.9.0.3")}},
	}
	own := "10.9.0.0/24 proto 2 metric 0 src 10.9.0.5"
	other := "10.78.0.0/16 proto 3 metric 0 src <nil> via 10.9.0.2"
	ours := "10.77.0.0/16 proto 16 metric 0 src 10.9.0.5 via 10.9.0.3"
	for range 2 {
		must(t, h.Apply(ns, c, cfg))
		expect(t, ns, "eth0", []string{"10.9.0.5/24 brd 10.9.0.255"}, []string{own, other, ours, "0.0.0.0/0 proto 3 metric 0 src <nil> via 10.9.0.1"})
	}
	cfg.Router = addr("10.9.0.9")
	cfg.Routes = nil
	must(t, h.Apply(ns, c, cfg))
	_, routes := has(t, ns, "eth0")
	if len(routes) != 3 || routes[0] == "" {
		t.Error("routes with another router:", routes)
	}
	// The engine can still put its default route beside ours.
	theirs("", "10.9.0.1")
}
