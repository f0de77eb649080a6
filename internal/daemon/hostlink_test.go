// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// peers are the addresses that the host has routes to through a link.
func (s *site) peers(ifname string) []string {
	out := []string{}
	for _, r := range s.h.Routes() {
		if r.Dev == ifname {
			out = append(out, r.Dst.String())
		}
	}
	slices.Sort(out)
	return out
}

func (s *site) awaitPeers(ifname string, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	s.Eventually(soon, "routes of the host link", func() bool { return slices.Equal(want, s.peers(ifname)) })
}

func host32(l api.Lease) string { return netip.PrefixFrom(addrOf(l), 32).String() }

func addrOf(l api.Lease) netip.Addr { return netip.MustParsePrefix(l.Address).Addr() }

// TestHostLink: without a link the host can't reach its containers; with one it
// can, both ways, and the routes follow the leases until it is removed.
func TestHostLink(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: 10 * time.Minute})
	s.h.AddAddr(lab.Uplink, netip.PrefixFrom(inLAN(s, 200), s.LAN("lan").Subnet.Bits()).String())
	before := s.h.Routes()
	web, db := s.Container("web"), s.Container("db")
	lw := s.attach(web)
	if _, err := s.h.Ping(addrOf(lw), time.Second); err == nil {
		t.Fatal("the host reaches its container without a link: this shows nothing")
	}
	var link api.Lease
	s.k.JSON(&link, "host-link", "--parent", lab.Uplink)
	name := "mvh-" + lab.Uplink
	if a := s.h.Addr(name).Prefix; link.Ifname != name || a.String() != link.Address || a.Bits() != 32 {
		t.Errorf("address %v on %s, the lease says %s on %s", a, name, link.Address, link.Ifname)
	}
	if line, ok := server.Lease(link.MAC); !ok || line.Addr != addrOf(link) {
		t.Errorf("the server's line is %+v, want %s for %s", line, link.Address, link.MAC)
	}
	var again api.Lease
	s.k.JSON(&again, "host-link", "--parent", lab.Uplink)
	if again.ID != link.ID {
		t.Errorf("a second host-link made %s beside %s", again.ID, link.ID)
	}
	ld := s.attach(db)
	s.awaitPeers(name, host32(lw), host32(ld))
	for _, c := range []struct {
		ns *lab.NS
		to netip.Addr
	}{{s.h.NS, addrOf(lw)}, {s.h.NS, addrOf(ld)}, {web.NS, addrOf(link)}, {db.NS, addrOf(link)}, {web.NS, addrOf(ld)}} {
		if _, err := c.ns.Ping(c.to, soon); err != nil {
			t.Errorf("ping from %s to %v: %v", c.ns.Name, c.to, err)
		}
		if err := greet(c.ns, s.at(c.to, link, web, lw, db), c.to); err != nil {
			t.Errorf("TCP from %s to %v: %v", c.ns.Name, c.to, err)
		}
	}

	s.k.Kill9()
	s.k.Start()
	s.k.MustRun("detach", db.Target())
	s.awaitPeers(name, host32(lw))
	if _, err := s.h.Ping(addrOf(lw), soon); err != nil {
		t.Errorf("ping after a restart of the keeper: %v", err)
	}
	s.k.MustRun("host-link", "--parent", lab.Uplink, "--remove")
	if _, there := s.h.Link(name); there {
		t.Errorf("%s is there after --remove", name)
	}
	if line, ok := server.Lease(link.MAC); ok {
		t.Errorf("the server still has %+v after --remove", line)
	}
	if diff := cmp.Diff(before, s.h.Routes(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("the host's routes (-before +after):\n%s", diff)
	}
}

// at is the namespace that has the address.
func (s *site) at(addr netip.Addr, link api.Lease, web *lab.Container, lw api.Lease, db *lab.Container) *lab.NS {
	switch addr {
	case addrOf(link):
		return s.h.NS
	case addrOf(lw):
		return web.NS
	}
	return db.NS
}

// greet makes a TCP connection between two namespaces and reads a line over it.
func greet(from, to *lab.NS, addr netip.Addr) error {
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
		return err
	}); err != nil {
		return err
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, "hello\n") //nolint:errcheck // the reader sees it
			c.Close()
		}
	}()
	var c net.Conn
	if err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", l.Addr().String(), soon)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	_, err := io.ReadAll(c)
	return err
}

// TestHostLinkFixed gives the link an address, which nobody else may have.
func TestHostLinkFixed(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: 10 * time.Minute})
	web := s.Container("web")
	lw := s.attach(web)
	fixed := inLAN(s, 201)
	for _, bad := range []string{addrOf(lw).String(), inLAN(s, 1).String()} {
		res := s.k.Run("host-link", "--parent", lab.Uplink, "--address", bad)
		if res.Status == 0 {
			t.Errorf("--address %s is taken, and was given to the link", bad)
		}
		t.Logf("%s", res.Stderr)
	}
	if links := s.peers("mvh-" + lab.Uplink); len(links) > 0 {
		t.Errorf("routes of a refused link: %v", links)
	}
	var link api.Lease
	s.k.JSON(&link, "host-link", "--parent", lab.Uplink, "--address", fixed.String())
	s.awaitPeers(link.Ifname, host32(lw))
	if _, err := s.h.Ping(addrOf(lw), soon); err != nil {
		t.Errorf("ping: %v", err)
	}
	if _, ok := server.Lease(link.MAC); ok || link.Server != "" || addrOf(link) != fixed {
		t.Errorf("link %+v: want %v without a server", link, fixed)
	}
	if res := s.k.Run("host-link", "--parent", lab.Uplink); res.Status != 1 {
		t.Errorf("another kind of link beside it: exit %d, want 1", res.Status)
	}
	s.k.MustRun("host-link", "--parent", lab.Uplink, "--remove")
	if res := s.k.Run("host-link", "--parent", lab.Uplink, "--remove"); res.Status != 1 {
		t.Errorf("--remove of nothing: exit %d, want 1", res.Status)
	}
}

// inLAN is the n-th address of the LAN's last 256, which the server's range
// leaves out.
func inLAN(s *site, n byte) netip.Addr {
	a := s.LAN("lan").Subnet.Masked().Addr().As4()
	if n > 1 {
		a[2] = 255
	}
	a[3] = n
	return netip.AddrFrom4(a)
}
