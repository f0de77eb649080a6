// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// secondHost makes another host on the LAN, with a machine id of its own, whose
// parent has another name, and starts its keeper.
func (s *site) secondHost(parent string) *site {
	s.t.Helper()
	h := s.Host("second")
	h.Plug(parent, s.LAN("lan"))
	k := s.NoKeeper(h)
	if err := os.Mkdir(k.StateDir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.StateDir, "machine-id"), []byte(strings.Repeat("7", 32)+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	k.Start()
	return &site{Lab: s.Lab, t: s.t, h: h, k: k, wire: h.Capture(parent, lab.DHCPAndARP)}
}

// neighbour is what a host knows of an address by ARP (`ip neigh`).
func neighbour(t *testing.T, h *lab.Host, addr netip.Addr) (found netlink.Neigh) {
	t.Helper()
	if err := h.Do(func() error {
		link, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		for _, n := range all {
			if n.IP.Equal(addr.AsSlice()) {
				found = n
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// forget makes a host ask for an address that nobody has, until it has given up.
func (s *site) forget(h *lab.Host, addr netip.Addr) {
	s.t.Helper()
	n := neighbour(s.t, h, addr)
	if err := h.Do(func() error { return netlink.NeighDel(&n) }); err != nil {
		s.t.Fatal(err)
	}
	s.Eventually(soon, "the neighbour has given up "+addr.String(), func() bool {
		_, _ = h.Ping(addr, 100*time.Millisecond)
		return neighbour(s.t, h, addr).State == netlink.NUD_FAILED
	})
}

// TestClusterIdentity moves a workload from one host to another: same MAC, same
// address, and the LAN's neighbours reach it there.
func TestClusterIdentity(t *testing.T) {
	for name, leave := range map[string][]string{"released": nil, "kept": {"--keep-lease"}} {
		for _, id := range []string{"", "duid"} {
			t.Run(strings.TrimSpace(name+" "+id), func(t *testing.T) {
				s := newSite(t)
				server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
				const parent = "eno1"
				there := s.secondHost(parent)
				peer := s.Host("peer")
				peer.AddAddr(lab.Uplink, netip.PrefixFrom(s.LAN("lan").Addr(7), 16).String())
				args := []string{"--identity", "cluster:web"}
				if id != "" {
					args = append(args, "--client-id", id)
				}

				before := s.Container("before")
				l := s.attach(before, args...)
				address := addr(t, l)
				if _, err := peer.Ping(address, soon); err != nil {
					t.Fatal(err)
				}
				s.k.MustRun(append([]string{"detach", before.Target()}, leave...)...)
				s.forget(peer, address)
				wire := peer.Capture(lab.Uplink, lab.ARPOnly)

				after := s.Container("after")
				l2 := there.attach(after, append(args, "--parent", parent)...)
				if l2.MAC != l.MAC || l2.ClientID != l.ClientID || l2.Address != l.Address {
					t.Errorf("%s %s %s on the first host, %s %s %s on the second", l.MAC, l.ClientID, l.Address, l2.MAC, l2.ClientID, l2.Address)
				}
				if ls := server.Leases(); len(ls) != 1 || ls[0].Addr != address || ls[0].MAC != l.MAC || ls[0].ClientID != l.ClientID {
					t.Errorf("the server has %+v", ls)
				}
				wire.Wait(soon, "announcement", announced(mac(t, l), address))
				s.Eventually(soon, "the announcement mends the peer's entry", func() bool {
					n := neighbour(t, peer, address)
					return n.State&(netlink.NUD_STALE|netlink.NUD_REACHABLE) != 0 && n.HardwareAddr.String() == l.MAC
				})
				if _, err := peer.Ping(address, soon); err != nil {
					t.Error(err)
				}
				for _, p := range wire.All() {
					if p.ARP != nil && p.Outgoing && p.L2Broadcast() && p.ARP.TargetIP == address {
						t.Errorf("the peer had to ask: %v", p)
					}
				}
			})
		}
	}
}

// TestClusterIdentityTwice runs a workload on two hosts at once: both tell of it,
// and neither gives its address up.
func TestClusterIdentityTwice(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	there := s.secondHost("eno1")
	a, b := s.Container("a"), s.Container("b")
	here, elsewhere := s.events(), there.events()
	l := s.attach(a, "--identity", "cluster:web")
	s.listens(1)
	l2 := there.attach(b, "--identity", "cluster:web", "--parent", "eno1")
	if l2.Address != l.Address || l2.MAC != l.MAC {
		t.Fatalf("%s %s and %s %s", l.Address, l.MAC, l2.Address, l2.MAC)
	}
	there.listens(1)
	if e := here.await("conflict"); !strings.Contains(e.Message, "another host") || !strings.Contains(e.Message, l.MAC) {
		t.Errorf("event %+v", e)
	}
	// The first host's broadcasts tell the second one.
	nobody := s.LAN("lan").Addr(200<<8 | 1)
	_, _ = a.Ping(nobody, 300*time.Millisecond)
	elsewhere.await("conflict")
	for _, at := range []*site{s, there} {
		var ls []api.Lease
		at.k.JSON(&ls, "leases")
		if len(ls) != 1 || ls[0].State != "bound" || ls[0].Address != l.Address || !strings.Contains(ls[0].LastError, "another host") {
			t.Errorf("%+v", ls)
		}
		at.silent(dhcpv4.MessageTypeDecline, 0)
	}
	for _, c := range []*lab.Container{a, b} {
		if got := c.Addr("eth0").Prefix.Addr(); got != addr(t, l) {
			t.Errorf("%s has %v", c.Name, got)
		}
	}
	if ls := server.Leases(); len(ls) != 1 {
		t.Errorf("the server has %+v", ls)
	}
	_, _ = a.Ping(nobody.Next(), 300*time.Millisecond)
	_, _ = b.Ping(nobody.Next(), 300*time.Millisecond)
	for _, log := range []*eventLog{here, elsewhere} {
		log.mu.Lock()
		n := 0
		for _, e := range log.all {
			if e.Kind == "conflict" {
				n++
			}
		}
		log.mu.Unlock()
		if n != 1 {
			t.Errorf("%d reports within the minute", n)
		}
	}
}
