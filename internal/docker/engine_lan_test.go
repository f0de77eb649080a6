// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// vlan is one network of the engine, with a LAN, a parent and a DHCP server to
// itself, and the containers that a test starts on it. When the test ends they
// are removed, and then neither the server nor the keeper may hold a lease.
type vlan struct {
	*site
	lan        *lab.LAN
	name       string
	parent     string
	server     *lab.Server
	wire       *lab.Capture // at the parent
	containers []string
	created    bool
}

// graceOpt is the release delay of the tests' networks.
const graceOpt = "release-delay=2s"

// vlan makes a LAN and, on the engine, its network with more arguments.
func (s *site) vlan(t *testing.T, o lab.ServerOptions, args ...string) *vlan {
	t.Helper()
	v := s.bareVLAN(t, o)
	v.create(args...)
	return v
}

// bareVLAN makes a LAN without a network on the engine.
func (s *site) bareVLAN(t *testing.T, o lab.ServerOptions) *vlan {
	t.Helper()
	return s.served(t, s.l.Dnsmasq, o)
}

// served is bareVLAN with a server of choice.
func (s *site) served(t *testing.T, serve func(lab.ServerOptions) *lab.Server, o lab.ServerOptions) *vlan {
	t.Helper()
	n := s.lans.Add(1)
	sub := *s
	sub.t = t
	v := &vlan{site: &sub, name: fmt.Sprintf("lan%d", n), parent: fmt.Sprintf("up%d", n)}
	v.lan = s.l.LAN(v.name)
	s.h.Plug(v.parent, v.lan)
	o.LAN, o.Name = v.lan, "dhcp-"+v.name
	v.server = serve(o)
	v.wire = s.h.Capture(v.parent, lab.DHCPOnly)
	t.Cleanup(v.end)
	return v
}

// createArgs are what makes the network.
func (v *vlan) createArgs(args ...string) []string {
	all := []string{"network", "create", "-d", "macvlan", "--ipam-driver", v.driver, "--ipam-opt", "parent=" + v.parent, "-o", "parent=" + v.parent}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "release-delay=") }) {
		all = append(all, "--ipam-opt", graceOpt)
	}
	return append(append(all, args...), v.name)
}

func (v *vlan) create(args ...string) {
	v.t.Helper()
	v.docker(v.createArgs(args...)...)
	v.created = true
}

// end removes what is there and looks at what is left.
func (v *vlan) end() {
	if len(v.containers) > 0 {
		v.try(append([]string{"rm", "-f"}, v.containers...)...)
	}
	if v.created {
		if out, err := v.try("network", "rm", v.name); err != nil {
			v.t.Errorf("network rm: %v: %s", err, out)
		}
	}
	if v.t.Failed() {
		v.t.Logf("on the wire of %s:\n%v", v.parent, v.wire)
		return
	}
	v.server.WaitEmpty(soon)
	v.await("the keeper to hold nothing on "+v.parent, func() bool { return len(v.leases()) == 0 })
}

// leases are the keeper's on the parent.
func (v *vlan) leases() []api.Lease {
	v.t.Helper()
	var all []api.Lease
	v.k.JSON(&all, "leases")
	return slices.DeleteFunc(all, func(l api.Lease) bool { return l.Parent != v.parent })
}

// box is a running container as kernel and engine see it.
type box struct {
	v    *vlan
	name string
	addr netip.Addr
	mac  string
}

// cname makes a container's name that no other test has.
func (v *vlan) cname(name string) string { return name + "-" + v.name }

// start runs a container that sleeps.
func (v *vlan) start(name string, args ...string) *box {
	v.t.Helper()
	name = v.cname(name)
	v.containers = append(v.containers, name)
	v.docker(append(append([]string{"run", "-d", "--name", name, "--network", v.name}, args...), "bb", "/bin/sleep", "600")...)
	b := &box{v: v, name: name}
	b.look()
	return b
}

// look reads the container's address and MAC from the kernel and compares them
// with the server's lease file and with what the engine says.
func (b *box) look() {
	b.v.t.Helper()
	f := strings.Fields(b.v.docker("inspect", "-f", fmt.Sprintf(`{{with index .NetworkSettings.Networks %q}}{{.IPAddress}} {{.MacAddress}}{{end}}`, b.v.name), b.name))
	if len(f) != 2 {
		b.v.t.Fatalf("%s has no address on %s", b.name, b.v.name)
	}
	b.addr, b.mac = netip.MustParseAddr(f[0]), f[1]
	link, addrs := b.link()
	if link == nil || !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.String() == b.addr.String() }) {
		b.v.t.Fatalf("%s: the engine says %v %s, the kernel %v %v", b.name, b.addr, b.mac, link, addrs)
	}
	if !b.held() {
		b.v.t.Fatalf("%s has %v %s, the server holds %v", b.name, b.addr, b.mac, b.v.server.Leases())
	}
}

// held reports whether the server holds the container's address for it.
func (b *box) held() bool {
	l, ok := b.v.server.Lease(b.mac)
	return ok && l.Addr == b.addr
}

// do runs f on the container's namespace.
func (b *box) do(f func(h *netlink.Handle)) {
	b.v.t.Helper()
	pid, err := strconv.Atoi(b.v.docker("inspect", "-f", "{{.State.Pid}}", b.name))
	if err != nil || pid == 0 {
		b.v.t.Fatalf("%s: pid %d: %v", b.name, pid, err)
	}
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		b.v.t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		b.v.t.Fatal(err)
	}
	defer h.Close()
	f(h)
}

// link is the container's interface with its MAC, and its addresses.
func (b *box) link() (link netlink.Link, addrs []netlink.Addr) {
	b.v.t.Helper()
	b.do(func(h *netlink.Handle) {
		links, err := h.LinkList()
		if err != nil {
			b.v.t.Fatal(err)
		}
		for _, l := range links {
			if l.Attrs().HardwareAddr.String() == b.mac {
				link = l
			}
		}
		if link != nil {
			addrs, err = h.AddrList(link, netlink.FAMILY_V4)
			if err != nil {
				b.v.t.Fatal(err)
			}
		}
	})
	return link, addrs
}

// routers are the gateways of the container's default routes.
func (b *box) routers() (via []string) {
	b.v.t.Helper()
	b.do(func(h *netlink.Handle) {
		routes, err := h.RouteList(nil, netlink.FAMILY_V4)
		if err != nil {
			b.v.t.Fatal(err)
		}
		for _, r := range routes {
			if r.Gw != nil && (r.Dst == nil || r.Dst.String() == "0.0.0.0/0") {
				via = append(via, r.Gw.String())
			}
		}
	})
	return via
}

// moved waits until the keeper keeps the lease in the container, and the kernel
// ends the address with it.
func (b *box) moved() api.Lease {
	b.v.t.Helper()
	var found api.Lease
	b.v.await("the lease of "+b.name+" in its container", func() bool {
		for _, l := range b.v.leases() {
			if l.Target == "docker:"+b.name && l.State == "bound" && l.MAC == b.mac {
				found = l
				return true
			}
		}
		return false
	})
	if !strings.HasPrefix(found.Address, b.addr.String()+"/") || found.Network != b.v.name {
		b.v.t.Errorf("%s: lease of %s on network %q", b.name, found.Address, found.Network)
	}
	_, addrs := b.link()
	if len(addrs) != 1 || addrs[0].ValidLft <= 0 || addrs[0].ValidLft > int(found.LeaseSeconds) {
		b.v.t.Errorf("%s: the kernel has %v, the lease is for %d s", b.name, addrs, found.LeaseSeconds)
	}
	return found
}

func (b *box) hw() net.HardwareAddr {
	mac, err := net.ParseMAC(b.mac)
	if err != nil {
		b.v.t.Fatal(err)
	}
	return mac
}

// released waits until the wire and the lease file say that the lease is given
// back: from the parent, with the gone child's MAC and the leased address.
func (b *box) released() {
	b.v.t.Helper()
	p := b.v.wire.Wait(soon, "release of "+b.addr.String(), func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRelease, b.hw()) && p.SrcIP == b.addr
	})
	if p.SrcMAC.String() != b.mac {
		b.v.t.Errorf("release of %v from %v, its child had %s", b.addr, p.SrcMAC, b.mac)
	}
	b.v.await("the server to free "+b.addr.String(), func() bool { return !b.held() })
}

// releases counts the DHCPRELEASEs on the wire.
func (v *vlan) releases() int {
	return len(v.wire.Match(func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeRelease, nil) }))
}

// ping reports whether one container reaches an address.
func (b *box) ping(to netip.Addr) bool {
	_, err := b.v.try("exec", b.name, "/bin/ping", "-c1", "-W2", to.String())
	return err == nil
}

// refused runs the engine's client, which must fail with all those words in one
// line.
func (v *vlan) refused(words []string, args ...string) string {
	v.t.Helper()
	start := time.Now()
	out, err := v.try(args...)
	if err == nil {
		v.t.Errorf("docker %s: went through: %s", strings.Join(args, " "), out)
		return out
	}
	line := ""
	for l := range strings.Lines(out) {
		if strings.Contains(l, "mvdhcp: ") {
			line = l
		}
	}
	for _, w := range words {
		if !strings.Contains(line, w) {
			v.t.Errorf("docker %s: no %q in the line of %q", strings.Join(args, " "), w, out)
		}
	}
	if took := time.Since(start); took > soon {
		v.t.Errorf("docker %s: took %v", strings.Join(args, " "), took)
	}
	return line
}
