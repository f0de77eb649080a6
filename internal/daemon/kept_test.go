// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"os"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestKept is the life of two leases: renewed, kept through the end of their
// keeper, released when one namespace goes and the other is detached.
func TestKept(t *testing.T) {
	for name, stop := range map[string]func(*site){
		"kill": func(s *site) { s.k.Kill9() },
		"term": func(s *site) {
			if status := s.k.Term(); status != 0 {
				s.t.Errorf("SIGTERM: exit status %d, want 0", status)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{T1: 3 * time.Second, T2: time.Minute})
			a, b := s.Container("a"), s.Container("b")
			la, lb := s.attach(a), s.attach(b)
			for _, l := range []api.Lease{la, lb} {
				s.renewed(l, 0)
			}
			stop(s)
			for c, l := range map[*lab.Container]api.Lease{a: la, b: lb} {
				if got := c.Addr("eth0").Prefix.String(); got != l.Address {
					t.Errorf("without a keeper %s has %s, want %s", c.Name, got, l.Address)
				}
			}
			if got := len(server.Leases()); got != 2 {
				t.Errorf("without a keeper the server has %d leases, want 2", got)
			}
			mark := s.wire.Mark()
			if _, err := os.Stat(s.k.Socket); name == "kill" && err != nil {
				t.Errorf("a killed keeper's socket: %v; it is to be stale for the next one", err)
			}
			s.k.Start()
			for _, l := range []api.Lease{la, lb} {
				p := s.renewed(l, mark)
				s.Eventually(soon, "valid_lft is the lease again", func() bool {
					return map[bool]*lab.Container{true: a, false: b}[l.ID == la.ID].Addr("eth0").Valid > 110*time.Second
				})
				if p.DHCP.ClientHWAddr.String() != l.MAC {
					t.Errorf("renewal is %v", p)
				}
			}
			s.silent(dhcpv4.MessageTypeDiscover, mark)
			s.silent(dhcpv4.MessageTypeRelease, 0)

			a.Delete()
			server.WaitLeases(soon, "only b's", func(ls []lab.ServerLease) bool { return len(ls) == 1 && ls[0].MAC == lb.MAC })
			s.k.MustRun("detach", b.Target())
			server.WaitEmpty(soon)
			s.bare(b)
			if ls := s.leases(); len(ls) != 0 {
				t.Errorf("leases left: %+v", ls)
			}
		})
	}
}

// TestEnds has targets and children end without a word, with a keeper and
// without.
func TestEnds(t *testing.T) {
	for _, keeper := range []string{"runs", "is down"} {
		t.Run("keeper "+keeper, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{T1: time.Minute})
			named, inProcess, byProcess, byHand, stays := s.Container("named"), s.Container("inprocess"), s.Container("byprocess"), s.Container("byhand"), s.Container("stays")
			only, process := inProcess.Sleep(), byProcess.Sleep()
			// A namespace that only its process holds, as a container's.
			inProcess.Delete()
			dying := []api.Lease{s.attach(named), s.attachTarget(target(only)), s.attachTarget(target(process)), s.attach(byHand)}
			kept := s.attach(stays)
			if keeper != "runs" {
				s.k.Kill9()
			}
			named.Delete()
			only.Kill9()
			process.Kill9()
			byHand.DeleteLink("eth0")
			if keeper != "runs" {
				s.k.Start()
			}
			server.WaitLeases(soon, "that of stays alone", func(ls []lab.ServerLease) bool { return len(ls) == 1 && ls[0].MAC == kept.MAC })
			for _, l := range dying {
				m, a := mac(t, l), addr(t, l)
				s.wire.Wait(soon, "RELEASE with the child's MAC and the leased address of "+l.Identity, func(p lab.Packet) bool {
					return p.Is(dhcpv4.MessageTypeRelease, m) && p.SrcMAC.String() == l.MAC && p.SrcIP == a && p.DHCP.ClientIPAddr.Equal(a.AsSlice())
				})
			}
			s.bare(byProcess)
			s.bare(byHand)
			s.Eventually(soon, "one record", func() bool { ls := s.leases(); return len(ls) == 1 && ls[0].ID == kept.ID })
			if got := stays.Addr("eth0").Prefix.String(); got != kept.Address {
				t.Errorf("the living container has %q, want %s", got, kept.Address)
			}
		})
	}
}

// TestPastT1 starts a keeper when T1 of a lease has passed: it verifies the
// address by INIT-REBOOT (RFC 2131, 4.3.2), without a DISCOVER.
func TestPastT1(t *testing.T) {
	s := newSite(t)
	s.Dnsmasq(lab.ServerOptions{T1: 3 * time.Second, T2: time.Minute})
	c := s.Container("c")
	l := s.attach(c)
	s.k.Kill9()
	s.Eventually(soon, "T1 has passed", func() bool { return c.Addr("eth0").Valid < 115*time.Second })
	mark, m, a := s.wire.Mark(), mac(t, l), addr(t, l)
	s.k.Start()
	s.wire.WaitAfter(mark, soon, "REQUEST of INIT-REBOOT", func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, m) && p.L3Broadcast() && p.DHCP.RequestedIPAddress().Equal(a.AsSlice()) &&
			p.DHCP.ServerIdentifier() == nil && p.DHCP.ClientIPAddr.IsUnspecified()
	})
	s.renewed(l, mark)
	s.silent(dhcpv4.MessageTypeDiscover, mark)
	if got := c.Addr("eth0"); got.Prefix.String() != l.Address || got.Valid < 110*time.Second {
		t.Errorf("address %+v, want %s with a lease of two minutes", got, l.Address)
	}
}

// TestForever takes a lease that does not end.
func TestForever(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: lab.Forever})
	c := s.Container("c")
	l := s.attach(c)
	if got := c.Addr("eth0"); got.Prefix.String() != l.Address || got.Valid != lab.Forever || l.LeaseSeconds != 1<<32-1 {
		t.Errorf("address %+v, lease %+v", got, l)
	}
	s.k.Kill9()
	s.k.Start()
	s.k.MustRun("detach", c.Target())
	server.WaitEmpty(soon)
}
