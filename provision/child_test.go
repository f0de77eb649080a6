// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestCreateChild(t *testing.T) {
	h := newHost(t)
	ns := newTestNS(t)
	for i, mode := range []Mode{Bridge, Private, VEPA} {
		spec := h.spec(i)
		spec.Name, spec.Mode = "", mode
		c, err := h.CreateChild(context.Background(), ns, spec)
		must(t, err)
		l := linkNamed(t, handle(t, ns), fmt.Sprintf("eth%d", i)).(*netlink.Macvlan)
		a := l.Attrs()
		want := Child{Name: a.Name, Index: a.Index, MAC: spec.MAC, NSID: c.NSID, Parent: h.parent.Index, Mode: mode}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Error(diff)
		}
		if a.Alias != spec.Alias || a.Flags&net.FlagUp == 0 || a.ParentIndex != h.parent.Index || a.HardwareAddr.String() != spec.MAC.String() {
			t.Errorf("link is %+v", a)
		}
		if want := map[Mode]netlink.MacvlanMode{Bridge: netlink.MACVLAN_MODE_BRIDGE, Private: netlink.MACVLAN_MODE_PRIVATE, VEPA: netlink.MACVLAN_MODE_VEPA}[mode]; l.Mode != want {
			t.Errorf("mode %v, want %v", l.Mode, want)
		}
		id, err := handle(t, h.ns).GetNetNsIdByFd(ns.FD())
		must(t, err)
		if id != c.NSID || id < 0 {
			t.Errorf("namespace id %d, the kernel says %d", c.NSID, id)
		}
	}
	names, err := h.Names(ns)
	must(t, err)
	if diff := cmp.Diff([]string{"lo", "eth0", "eth1", "eth2"}, names); diff != "" {
		t.Error(diff)
	}
	if links, err := handle(t, h.ns).LinkList(); err != nil || len(links) != 2 {
		t.Errorf("host has links %v, %v", links, err)
	}
}

// Before Linux 6.14 a host link of the same name is in the way.
func TestCreateChildRenamed(t *testing.T) {
	h := newHost(t)
	ns := newTestNS(t)
	must(t, h.createRenamed(ns, h.spec(1), "eth0"))
	if l := linkNamed(t, handle(t, ns), "eth0"); l.Attrs().Flags&net.FlagUp == 0 || l.Type() != "macvlan" {
		t.Errorf("link is %+v", l)
	}
	if err := h.createRenamed(ns, h.spec(2), "eth0"); !errors.Is(err, errNameTaken) {
		t.Error("name taken:", err)
	}
	if names, _ := h.Names(ns); len(names) != 2 {
		t.Error("left behind:", names)
	}
}

func TestCreateChildNamedLikeHostLink(t *testing.T) {
	h := newHost(t)
	must(t, handle(t, h.ns).LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}))
	_, c := h.child(t, 1)
	if c.Name != "eth0" {
		t.Error("name is", c.Name)
	}
	if l := linkNamed(t, handle(t, h.ns), "eth0"); l.Type() != "bridge" {
		t.Error("the host's eth0 is now a", l.Type())
	}
}

func TestCreateChildRefused(t *testing.T) {
	h := newHost(t)
	busy, _ := h.child(t, 1)
	must(t, handle(t, busy).LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth2"}}))
	gone := h.parent
	gone.Index = 9999
	bridged := addVeth(t, h, "bp")
	nh := handle(t, h.ns)
	must(t, nh.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}))
	must(t, nh.LinkSetMaster(linkNamed(t, nh, "bp"), linkNamed(t, nh, "br")))

	for _, tt := range []struct {
		name string
		edit func(*ChildSpec)
		want error
		says string
	}{
		{"name taken", func(s *ChildSpec) { s.Name = "eth0" }, ErrBusy, "eth0 is taken"},
		{"name taken by another kind", func(s *ChildSpec) { s.Name = "eth2" }, ErrBusy, "eth2 is taken"},
		{"name too long", func(s *ChildSpec) { s.Name = "abcdefghijklmnop" }, ErrInvalid, "at most 15"},
		{"slash in name", func(s *ChildSpec) { s.Name = "a/b" }, ErrInvalid, "slash"},
		{"short MAC", func(s *ChildSpec) { s.MAC = s.MAC[:5] }, ErrInvalid, "6 bytes"},
		{"multicast MAC", func(s *ChildSpec) { s.MAC = net.HardwareAddr{1, 2, 3, 4, 5, 6} }, ErrInvalid, "multicast"},
		{"zero MAC", func(s *ChildSpec) { s.MAC = make(net.HardwareAddr, 6) }, ErrInvalid, "all zero"},
		{"the parent's MAC", func(s *ChildSpec) { s.MAC = h.parent.MAC }, ErrBusy, "p0 itself"},
		{"no mode", func(s *ChildSpec) { s.Mode = "passthru" }, ErrInvalid, "choose bridge"},
		{"long alias", func(s *ChildSpec) { s.Alias = strings.Repeat("x", 256) }, ErrInvalid, "255"},
		{"parent gone", func(s *ChildSpec) { s.Parent = gone }, ErrGone, "p0 is gone"},
		{"bridge port", func(s *ChildSpec) { s.Parent = bridged }, ErrInvalid, "bridge"},
		{"sibling's MAC", func(s *ChildSpec) { s.MAC = mac(1) }, ErrBusy, "in use on p0 by eth0 in"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := h.Names(busy)
			must(t, err)
			spec := h.spec(2)
			spec.Name = "eth1"
			tt.edit(&spec)
			_, err = h.CreateChild(context.Background(), busy, spec)
			if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("CreateChild: %v", err)
			}
			after, err := h.Names(busy)
			must(t, err)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error("left behind:", diff)
			}
		})
	}
}

// addVeth makes another parent, its other end down.
func addVeth(t *testing.T, h *testHost, name string) Parent {
	t.Helper()
	must(t, handle(t, h.ns).LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "w", PeerNamespace: netlink.NsFd(h.wire.FD()),
	}))
	p, _, err := h.EnsureParent(name)
	must(t, err)
	return p
}

func TestCreateChildContext(t *testing.T) {
	h := newHost(t)
	ns := newTestNS(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.CreateChild(ctx, ns, h.spec(1)); !errors.Is(err, context.Canceled) {
		t.Error("canceled:", err)
	}
	if names, _ := h.Names(ns); len(names) != 1 {
		t.Error("left behind:", names)
	}
	// While it waits for a MAC.
	h.child(t, 1)
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.CreateChild(ctx, ns, h.spec(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("deadline:", err)
	}
	if names, _ := h.Names(ns); len(names) != 1 {
		t.Error("left behind:", names)
	}
}

// The MAC becomes free while CreateChild waits: the last user's namespace dies.
func TestCreateChildWaitsForMAC(t *testing.T) {
	h := newHost(t)
	for n := range 5 {
		old, _ := h.child(t, n)
		ns := newTestNS(t)
		old.Close()
		if _, err := h.CreateChild(context.Background(), ns, h.spec(n)); err != nil {
			t.Error(err)
		}
	}
}

func TestCreateChildConcurrently(t *testing.T) {
	h := newHost(t)
	const n = 50
	var wg sync.WaitGroup
	children, spaces := make([]Child, n), make([]*NS, n)
	for i := range n {
		spaces[i] = newTestNS(t)
	}
	for i := range n {
		wg.Go(func() {
			c, err := h.CreateChild(context.Background(), spaces[i], h.spec(i))
			if err != nil {
				t.Error(err)
				return
			}
			children[i] = c
			cfg := Config{Address: prefix(fmt.Sprintf("10.9.0.%d/24", i+10)), Lifetime: time.Minute, Router: addr("10.9.0.1")}
			if err := h.Apply(spaces[i], c, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids := map[int]bool{}
	for i, c := range children {
		ids[c.NSID] = true
		if c.MAC.String() != mac(i).String() {
			t.Error("child", i, "has MAC", c.MAC)
		}
	}
	if len(ids) != n {
		t.Errorf("%d namespace ids for %d namespaces", len(ids), n)
	}
	for i := range n {
		wg.Go(func() {
			if err := h.DeleteChild(spaces[i], children[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A child speaks ARP for its own addresses only and does not filter strictly; the
// settings of the namespace and of its other links stay as they are.
func TestChildSpeaksForItself(t *testing.T) {
	h := newHost(t)
	for name, tc := range map[string]struct{ all, own, want string }{
		"off":             {"0", "0", "0"},
		"strict":          {"1", "1", "2"},
		"strict by one":   {"0", "1", "2"},
		"strict by all":   {"1", "0", "2"},
		"loose":           {"2", "0", "0"},
		"loose by itself": {"1", "2", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newTestNS(t)
			// /proc/sys/net is that of the thread which opens it.
			file := func(link, key string) string { return "/proc/sys/net/ipv4/conf/" + link + "/" + key }
			must(t, ns.Do(func() error {
				return errors.Join(os.WriteFile(file("all", "rp_filter"), []byte(tc.all), 0), os.WriteFile(file("default", "rp_filter"), []byte(tc.own), 0))
			}))
			c, err := h.CreateChild(context.Background(), ns, h.spec(1))
			must(t, err)
			defer func() { must(t, h.DeleteChild(ns, c)) }()
			got := map[string]string{}
			must(t, ns.Do(func() error {
				for _, link := range []string{"eth0", "all", "default"} {
					for _, key := range []string{"arp_ignore", "arp_announce", "rp_filter"} {
						b, err := os.ReadFile(file(link, key))
						if err != nil {
							return err
						}
						got[link+" "+key] = strings.TrimSpace(string(b))
					}
				}
				return nil
			}))
			want := map[string]string{
				"eth0 arp_ignore": "1", "eth0 arp_announce": "2", "eth0 rp_filter": tc.want,
				"all arp_ignore": "0", "all arp_announce": "0", "all rp_filter": tc.all,
				"default arp_ignore": "0", "default arp_announce": "0", "default rp_filter": tc.own,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The kernel's refusals become one line that says what to do.
func TestExplain(t *testing.T) {
	ns := newTestNS(t)
	spec := ChildSpec{Parent: Parent{Name: "up0", Index: 7}, Name: "eth0"}
	for _, tt := range []struct {
		err, want error
		says      string
	}{
		{nil, nil, ""},
		{unix.EOPNOTSUPP, ErrUnsupported, "this kernel has no macvlan: load the module (modprobe macvlan)"},
		{unix.ENODEV, ErrGone, "parent up0 is gone"},
		{unix.EBUSY, ErrInvalid, "name that one as parent"},
		{unix.EINVAL, ErrInvalid, "passthru"},
		{errNameTaken, ErrBusy, "eth0 is taken"},
		{unix.ENOMEM, unix.ENOMEM, "create eth0 on up0"},
	} {
		err := spec.explain(tt.err, ns, "eth0")
		if !errors.Is(err, tt.want) || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%v becomes %v", tt.err, err)
		}
	}
	// A kind of link that the kernel does not know is refused with EOPNOTSUPP,
	// as macvlan is where it is missing (net/core/rtnetlink.c).
	err := inNS(ns, func(c *conn) error {
		kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		kind.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlen"))
		return c.do(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nl.NewIfInfomsg(unix.AF_UNSPEC), stringAttr(unix.IFLA_IFNAME, "x0"), kind), nil)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a link of an unknown kind: %v", err)
	}
}
