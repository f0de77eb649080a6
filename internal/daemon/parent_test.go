// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// fleet attaches n containers, a few at a time.
func (s *site) fleet(n int) (cs []*lab.Container, ls []api.Lease) {
	s.t.Helper()
	client := api.NewClient(s.k.Socket)
	cs, ls = make([]*lab.Container, n), make([]api.Lease, n)
	for i := range cs {
		cs[i] = s.Container("c")
	}
	var all sync.WaitGroup
	few := make(chan struct{}, 8)
	for i, c := range cs {
		all.Go(func() {
			few <- struct{}{}
			defer func() { <-few }()
			var err error
			if ls[i], err = client.Attach(s.t.Context(), api.AttachRequest{Target: c.Target(), Parent: lab.Uplink, ConflictCheck: "async"}, quiet); err != nil {
				s.t.Error(err)
			}
		})
	}
	all.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	return cs, ls
}

// rebooted waits until each lease was verified by INIT-REBOOT after mark
// (RFC 2131, 4.3.2), and returns the most DHCP messages of clients in any second.
func (s *site) rebooted(c *lab.Capture, mark int, ls []api.Lease) (most int) {
	s.t.Helper()
	for _, l := range ls {
		m, a := mac(s.t, l), addr(s.t, l)
		c.WaitAfter(mark, 2*soon, "INIT-REBOOT of "+l.Address, func(p lab.Packet) bool {
			return p.Is(dhcpv4.MessageTypeRequest, m) && p.DHCP.RequestedIPAddress().Equal(a.AsSlice()) && p.DHCP.ServerIdentifier() == nil
		})
	}
	var at []time.Time
	first := 0
	for _, p := range c.After(mark) {
		if p.DHCP == nil || p.DHCP.OpCode != dhcpv4.OpcodeBootRequest {
			continue
		}
		if typ := p.Type(); typ != dhcpv4.MessageTypeRequest {
			s.t.Errorf("on the wire: %v", p)
		}
		for at = append(at, p.Time); p.Time.Sub(at[first]) >= time.Second; {
			first++
		}
		most = max(most, len(at)-first)
	}
	return most
}

// unchanged waits until the server's leases, which it writes anew with every
// ACK, are those of before, whatever their times.
func unchanged(server *lab.Server, before []lab.ServerLease) {
	timeless := func(ls []lab.ServerLease) map[string]lab.ServerLease {
		m := map[string]lab.ServerLease{}
		for _, l := range ls {
			l.Expiry = time.Time{}
			m[l.MAC] = l
		}
		return m
	}
	want := timeless(before)
	server.WaitLeases(soon, "those of before", func(ls []lab.ServerLease) bool { return maps.Equal(timeless(ls), want) })
}

// TestParentRemade deletes the parent of 200 children under traffic and makes it
// anew.
func TestParentRemade(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	cs, ls := s.fleet(200)
	before := server.Leases()
	if len(before) != len(ls) {
		t.Fatalf("%d leases at the server", len(before))
	}
	served := server.Capture(lab.ServerIf, lab.DHCPOnly)
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for _, c := range cs[:20] {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Ping(server.Addr, 100*time.Millisecond)
				}
			}
		})
	}
	defer func() { close(stop); traffic.Wait() }()
	events := s.events()
	mark := served.Mark()

	s.h.DeleteLink(lab.Uplink)
	events.await("parent-gone")
	s.Eventually(soon, "leases tell of it", func() bool {
		return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.ParentState != "missing" })
	})
	for _, c := range cs {
		if links := c.Links(); len(links) != 0 {
			t.Fatalf("%s still has %+v", c.Name, links)
		}
	}
	start := time.Now()
	s.h.Plug(lab.Uplink, s.LAN("lan"))
	for i, c := range cs {
		s.Eventually(soon, "address and router of "+c.Name, func() bool {
			return c.Addr("eth0").Prefix.String() == ls[i].Address && c.DefaultRoute() == server.Addr
		})
		link, _ := c.Link("eth0")
		if link.MAC.String() != ls[i].MAC || link.Mode != "bridge" || !link.Up {
			t.Errorf("%s: %+v", c.Name, link)
		}
	}
	t.Logf("all addresses back %v after the parent was begun", time.Since(start))
	for _, c := range cs[:20] {
		if _, err := c.Ping(server.Addr, soon); err != nil {
			t.Error(err)
		}
	}
	most := s.rebooted(served, mark, ls)
	t.Logf("verified %v after the parent was begun, at most %d messages in a second", time.Since(start), most)
	if most > 100 {
		t.Errorf("%d messages in a second", most)
	}
	unchanged(server, before)
	s.Eventually(soon, "all bound", func() bool {
		return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.State != "bound" || l.ParentState != "up" })
	})
}

// TestParentRemadeUnseen has the parent go, or come back, while no keeper runs, and
// kills the keeper in the middle of making children again.
func TestParentRemadeUnseen(t *testing.T) {
	for name, story := range map[string]func(s *site, plug func()){
		"gone and back": func(s *site, plug func()) { s.k.Kill9(); s.h.DeleteLink(lab.Uplink); plug(); s.k.Start() },
		"gone":          func(s *site, plug func()) { s.k.Kill9(); s.h.DeleteLink(lab.Uplink); s.k.Start(); plug() },
		"back":          func(s *site, plug func()) { s.h.DeleteLink(lab.Uplink); s.k.Kill9(); plug(); s.k.Start() },
		"in the middle": func(s *site, plug func()) { s.h.DeleteLink(lab.Uplink); plug(); s.k.Kill9(); s.k.Start() },
		"down, then back": func(s *site, plug func()) {
			s.h.SetCarrier(lab.Uplink, false)
			s.k.Kill9()
			s.h.DeleteLink(lab.Uplink)
			s.k.Start()
			plug()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
			cs, ls := s.fleet(20)
			before, served := server.Leases(), server.Capture(lab.ServerIf, lab.DHCPOnly)
			mark := served.Mark()
			story(s, func() { s.h.Plug(lab.Uplink, s.LAN("lan")) })
			for i, c := range cs {
				s.Eventually(soon, "address of "+c.Name, func() bool {
					link, _ := c.Link("eth0")
					return c.Addr("eth0").Prefix.String() == ls[i].Address && link.MAC.String() == ls[i].MAC && c.DefaultRoute() == server.Addr
				})
			}
			s.rebooted(served, mark, ls)
			unchanged(server, before)
			s.Eventually(soon, "all bound", func() bool {
				return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.State != "bound" || l.ParentState != "up" })
			})
		})
	}
}

// TestParentFlaps sets a parent down and up a hundred times.
func TestParentFlaps(t *testing.T) {
	const n = 30
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	_, ls := s.fleet(n)
	served := server.Capture(lab.ServerIf, lab.DHCPOnly)
	mark := served.Mark()
	for range 100 {
		s.h.SetLink(lab.Uplink, false)
		s.h.SetLink(lab.Uplink, true)
	}
	s.rebooted(served, mark, ls)
	s.Eventually(soon, "all bound", func() bool {
		return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.State != "bound" || l.ParentState != "up" })
	})
	s.idle(0)
	requests := 0
	for _, p := range served.After(mark) {
		if p.Is(dhcpv4.MessageTypeRequest, nil) {
			requests++
		}
	}
	t.Logf("%d messages for %d leases and 100 flaps", requests, n)
	if requests > 3*n {
		t.Errorf("%d messages for %d leases", requests, n)
	}
}

// TestHostLinkRemade deletes a parent under a host link and renames it: host and
// container reach each other again.
func TestHostLinkRemade(t *testing.T) {
	s := newSite(t)
	s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	c := s.Container("c")
	l := s.attach(c)
	s.k.MustRun("host-link", "--parent", lab.Uplink)
	reach := func(what string) {
		t.Helper()
		if _, err := s.h.Ping(addr(t, l), soon); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	reach("at first")
	s.h.DeleteLink(lab.Uplink)
	s.Eventually(soon, "the host link is gone with it", func() bool { return len(s.h.Links()) == 0 })
	s.h.Plug(lab.Uplink, s.LAN("lan"))
	reach("with the parent anew")
	s.rename(lab.Uplink, "lan9")
	s.Eventually(soon, "leases follow", func() bool {
		ls := s.leases()
		return len(ls) == 2 && !slices.ContainsFunc(ls, func(l api.Lease) bool { return l.Parent != "lan9" || l.ParentState != "up" })
	})
	reach("with the parent renamed")
	s.k.MustRun("host-link", "--parent", "lan9", "--remove")
	s.Eventually(soon, "the parent alone", func() bool { return len(s.h.Links()) == 1 })
}

// TestCarrier pulls the cable and sets the parent down under 50 leases.
func TestCarrier(t *testing.T) {
	for name, down := range map[string]func(s *site, on bool){
		"cable": func(s *site, on bool) { s.h.SetCarrier(lab.Uplink, on) },
		"admin": func(s *site, on bool) { s.h.SetLink(lab.Uplink, on) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
			_, ls := s.fleet(50)
			before := server.Leases()
			served, events := server.Capture(lab.ServerIf, lab.DHCPOnly), s.events()
			mark := served.Mark()
			down(s, false)
			e := events.await("parent-down")
			why := map[string]string{"cable": "has no carrier", "admin": "is set down"}[name]
			if !strings.Contains(e.Message, why) {
				t.Errorf("event %+v", e)
			}
			s.Eventually(soon, "leases tell of it", func() bool {
				return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.ParentState != "down" || l.State != "bound" })
			})
			if out := s.k.MustRun("status"); !strings.Contains(out, map[string]string{"cable": "no carrier", "admin": "down"}[name]) {
				t.Errorf("status: %s", out)
			}
			late := s.Container("late")
			s.k.Run("attach", late.Target(), "--parent", lab.Uplink) // that it has waited for the carrier is known after it
			for _, args := range [][]string{{"attach", late.Target(), "--parent", lab.Uplink}, {"probe", "--parent", lab.Uplink}, {"renew", ls[0].ID}} {
				r := s.k.Run(args...)
				if r.Status == 0 || !strings.Contains(r.Stderr, why) || strings.Count(r.Stderr, "\n") != 1 || r.Took > 4*time.Second {
					t.Errorf("%v after %v", r, r.Took)
				}
			}
			down(s, true)
			most := s.rebooted(served, mark, ls)
			if most > 100 {
				t.Errorf("%d messages in a second", most)
			}
			unchanged(server, before)
			s.Eventually(soon, "all bound", func() bool {
				return !slices.ContainsFunc(s.leases(), func(l api.Lease) bool { return l.State != "bound" || l.ParentState != "up" })
			})
			s.attach(late)
		})
	}
}

// TestParentRenamed renames a parent, with a keeper and without.
func TestParentRenamed(t *testing.T) {
	for name, runs := range map[string]bool{"keeper runs": true, "keeper is down": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{T1: time.Minute})
			a, b := s.Container("a"), s.Container("b")
			s.attach(a)
			lb := s.attach(b)
			events := (*eventLog)(nil)
			if runs {
				events = s.events()
			} else {
				s.k.Kill9()
			}
			s.rename(lab.Uplink, "lan9")
			if runs {
				events.await("parent-renamed")
			} else {
				s.k.Start()
			}
			s.Eventually(soon, "leases follow", func() bool {
				ls := s.leases()
				return len(ls) == 2 && !slices.ContainsFunc(ls, func(l api.Lease) bool { return l.Parent != "lan9" || l.ParentState != "up" || l.State != "bound" })
			})
			a.Delete() // released from the parent
			server.WaitLeases(soon, "b's alone", func(ls []lab.ServerLease) bool { return len(ls) == 1 && ls[0].MAC == lb.MAC })
			s.k.MustRun("detach", b.Target())
			server.WaitEmpty(soon)
		})
	}
}

// TestParentMoved takes a parent to another namespace and back.
func TestParentMoved(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	c, elsewhere := s.Container("c"), s.NS("elsewhere")
	l := s.attach(c)
	events := s.events()
	move(t, s.h.NS, lab.Uplink, elsewhere)
	events.await("parent-gone")
	s.Eventually(soon, "the lease tells of it", func() bool {
		got := s.leases()[0]
		return got.ParentState == "missing" && strings.Contains(got.LastError, "moved to another namespace")
	})
	if got := c.Addr("eth0").Prefix.String(); got != l.Address {
		t.Errorf("meanwhile %q", got)
	}
	// A new link takes its place: the child comes to hang on that.
	s.h.Plug(lab.Uplink, s.LAN("lan"))
	events.await("healed")
	s.Eventually(soon, "the child is on the new parent", func() bool {
		child, ok := c.Link("eth0")
		parent, _ := s.h.Link(lab.Uplink)
		return ok && child.Parent == parent.Index && c.Addr("eth0").Prefix.String() == l.Address
	})
	if _, err := c.Ping(server.Addr, soon); err != nil {
		t.Error(err)
	}
	if got, ok := server.Lease(l.MAC); !ok || got.Addr != addr(t, l) || server.Count(dhcpv4.MessageTypeRelease, l.MAC) != 0 {
		t.Errorf("the server has %+v", got)
	}
}

// TestParentMTU lowers a parent's MTU and raises it again: children follow, as
// far as option 26 lets them.
func TestParentMTU(t *testing.T) {
	s := newSite(t)
	s.Dnsmasq(lab.ServerOptions{Extra: []string{"--dhcp-option=26,1450"}})
	bound, own := s.Container("bound"), s.Container("own")
	s.attach(bound)
	s.attach(own, "--mtu", "1480")
	events := s.events()
	set := func(mtu int) {
		must(t, s.h.Do(func() error {
			l, err := netlink.LinkByName(lab.Uplink)
			if err == nil {
				err = netlink.LinkSetMTU(l, mtu)
			}
			return err
		}))
	}
	mtus := func(want ...int) {
		t.Helper()
		s.Eventually(soon, "MTUs", func() bool {
			a, _ := bound.Link("eth0")
			b, _ := own.Link("eth0")
			return slices.Equal([]int{a.MTU, b.MTU}, want)
		})
	}
	mtus(1450, 1480)
	set(1400)
	if e := events.await("parent-changed"); e.Old["mtu"] != "1500" || e.New["mtu"] != "1400" {
		t.Errorf("event %+v", e)
	}
	mtus(1400, 1400)
	set(1500)
	mtus(1450, 1480)
}

// rename gives a parent another name.
func (s *site) rename(from, to string) {
	s.t.Helper()
	must(s.t, s.h.Do(func() error {
		l, err := netlink.LinkByName(from)
		if err == nil {
			err = netlink.LinkSetDown(l)
		}
		if err == nil {
			err = netlink.LinkSetName(l, to)
		}
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		return err
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
