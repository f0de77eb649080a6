// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// testHost is a host namespace of the test's own, with a parent p0 whose other
// end is in the namespace wire. Nothing of it is in the real host namespace.
type testHost struct {
	*Kernel
	ns     *NS
	wire   *NS
	parent Parent
}

func newHost(t testing.TB) *testHost {
	t.Helper()
	h := &testHost{ns: newTestNS(t), wire: newTestNS(t)}
	nh := handle(t, h.ns)
	must(t, nh.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "p0"}, PeerName: "w0", PeerNamespace: netlink.NsFd(h.wire.FD()),
	}))
	wire := handle(t, h.wire)
	must(t, wire.LinkSetUp(linkNamed(t, wire, "w0")))
	k, err := NewKernelIn(h.ns)
	must(t, err)
	t.Cleanup(func() { must(t, k.Close()) })
	h.Kernel = k
	h.parent, _, err = k.EnsureParent("p0")
	must(t, err)
	return h
}

func newTestNS(t testing.TB) *NS {
	t.Helper()
	ns, err := NewNamespace()
	must(t, err)
	t.Cleanup(ns.Close)
	return ns
}

var counter atomic.Int64

// uniqueName is one that no other test, here or in another process, uses.
func uniqueName() string { return fmt.Sprintf("mvp%d-%d", os.Getpid(), counter.Add(1)) }

// newNamed makes a named namespace as ip-netns(8) does.
func newNamed(t testing.TB) (name string, remove func()) {
	t.Helper()
	name = uniqueName()
	run(t, "ip", "netns", "add", name)
	removed := false
	remove = func() {
		if !removed {
			removed = true
			run(t, "ip", "netns", "del", name)
		}
	}
	t.Cleanup(remove)
	return name, remove
}

func run(t testing.TB, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// handle asks the kernel by another road than the code under test.
func handle(t testing.TB, ns *NS) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func linkNamed(t testing.TB, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	must(t, err)
	return l
}

func mac(n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x6d, 0x76, byte(n >> 16), byte(n >> 8), byte(n)}
}

func (h *testHost) spec(n int) ChildSpec {
	return ChildSpec{Parent: h.parent, Name: "eth0", MAC: mac(n), Mode: Bridge, Alias: fmt.Sprintf("mvdhcp:test%d", n)}
}

// child makes a child in a namespace of its own.
func (h *testHost) child(t testing.TB, n int) (*NS, Child) {
	t.Helper()
	ns := newTestNS(t)
	c, err := h.CreateChild(context.Background(), ns, h.spec(n))
	must(t, err)
	return ns, c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what the kernel does later, like freeing a namespace.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func addrs(s string) (list []netip.Addr) {
	for f := range strings.FieldsSeq(s) {
		list = append(list, addr(f))
	}
	return list
}
