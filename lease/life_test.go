// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
)

// Renewal is a unicast over UDP from the leased address after T1, rebinding a
// broadcast after T2, and no packet goes out in between that is not due
// (RFC 2131, 4.4.5).
func TestRenewAndRebind(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.want(EvBound)
		r.wire("DISCOVER packet broadcast", "REQUEST packet broadcast")

		time.Sleep(5*time.Hour + 30*time.Minute)
		r.wire()
		time.Sleep(time.Hour)
		r.wire("REQUEST udp unicast")
		r.want(EvRenewed)
		if v := r.one(); v.State != Bound || v.Renewals != 1 {
			r.Errorf("%s, renewed %d times", v.State, v.Renewals)
		}

		r.server(func(s *server) { s.up = false })
		time.Sleep(9*time.Hour + 30*time.Minute) // T2 is 10.5 h after the renewal, half an hour ago, 2 % more or less
		r.w.mu.Lock()
		for _, s := range r.w.log {
			if s.String() != "REQUEST udp unicast" || s.to != r.w.srv.id || s.source != s.ciaddr {
				r.Errorf("before T2: %v to %v from %v", s, s.to, s.source)
			}
		}
		n := len(r.w.log)
		r.w.mu.Unlock()
		if n < 3 || n > 12 {
			r.Errorf("%d tries to renew", n)
		}
		if v := r.one(); v.State != Renewing || v.LastError == "" {
			r.Errorf("%s, error %q", v.State, v.LastError)
		}
		time.Sleep(time.Hour)
		if v := r.one(); v.State != Rebinding {
			r.Errorf("past T2: %s", v.State)
		}
		r.w.messages()
		r.server(func(s *server) { s.up = true })
		time.Sleep(time.Hour)
		r.wire("REQUEST packet broadcast")
		r.want(EvRebound)
	})
}

// Where UDP is refused the renewal leaves from the link layer, still unicast.
func TestRenewWithoutUDP(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.udpErr = syscall.EPERM
		r.attach("web")
		r.settle()
		r.w.messages()
		time.Sleep(7 * time.Hour)
		r.wire("REQUEST packet unicast")
		r.want(EvBound, EvRenewed)
	})
}

// A NAK takes the address off at once and starts again from INIT.
func TestNAK(t *testing.T) {
	sim(t, func(r *rig) {
		old := r.attach("web")
		r.settle()
		r.server(func(s *server) {
			s.drop(old.Spec.MAC.String())
			s.lie = func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				if reply.MessageType() != dhcpv4.MessageTypeNak {
					return nil // silent from here on
				}
				return []*dhcpv4.DHCPv4{reply}
			}
		})
		time.Sleep(7 * time.Hour)
		r.want(EvBound, EvNAK)
		if got := r.onKid("web/eth0"); got != "" {
			r.Errorf("after a NAK the kernel has %s", got)
		}
		if v := r.one(); v.Binding != nil || v.State.HasAddress() {
			r.Errorf("after a NAK: %s with %+v", v.State, v.Binding)
		}
		r.server(func(s *server) { s.lie = nil })
		time.Sleep(2 * time.Minute)
		r.want(EvBound)
		if got := r.onKid("web/eth0"); got != r.one().Binding.Address.String() {
			r.Errorf("the kernel has %q", got)
		}
	})
}

// Expiry takes the address off and asks for one for ever, at most once a minute
// and a bit.
func TestExpiry(t *testing.T) {
	sim(t, func(r *rig) {
		r.attach("web")
		r.settle()
		r.server(func(s *server) { s.up = false })
		time.Sleep(12 * time.Hour)
		r.want(EvBound, EvExpired)
		if got := r.onKid("web/eth0"); got != "" {
			r.Errorf("after expiry the kernel has %s", got)
		}
		time.Sleep(time.Hour) // the steady rate
		r.w.messages()
		time.Sleep(24 * time.Hour)
		r.w.mu.Lock()
		n := 0
		for _, s := range r.w.log {
			if s.kind != dhcpv4.MessageTypeDiscover {
				r.Errorf("%v without a server", s)
			}
			n++
		}
		r.w.mu.Unlock()
		if n < 24*30 || n > 24*60*5 {
			r.Errorf("%d DISCOVERs in a day", n)
		}
		r.server(func(s *server) { s.up = true })
		time.Sleep(80 * time.Second)
		r.want(EvBound)
	})
}

// What an ACK changes is applied and told, with old and new.
func TestChangedOnACK(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(s *server, mac string)
		old, new map[string]string
	}{
		"router": {
			func(s *server, _ string) { s.router = netip.MustParseAddr("10.0.0.2") },
			map[string]string{"router": "10.0.0.1"}, map[string]string{"router": "10.0.0.2"},
		},
		"dns": {
			func(s *server, _ string) { s.dns = netip.MustParseAddr("10.0.0.54") },
			map[string]string{"dns": "[10.0.0.53]"}, map[string]string{"dns": "[10.0.0.54]"},
		},
		"mtu": {
			func(s *server, _ string) { s.mtu = 1400 },
			map[string]string{"mtu": "0"}, map[string]string{"mtu": "1400"},
		},
		"address": {
			func(s *server, mac string) { s.move[mac] = netip.MustParseAddr("10.0.1.200") },
			map[string]string{"address": "10.0.1.1/16"}, map[string]string{"address": "10.0.1.200/16"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("web")
				r.settle()
				r.got()
				r.server(func(s *server) { tc.change(s, rec.Spec.MAC.String()) })
				time.Sleep(7 * time.Hour)
				evs := r.want(EvRenewed, EvChanged)
				if len(evs) == 2 {
					if d := cmp.Diff([]map[string]string{tc.old, tc.new}, []map[string]string{evs[1].Old, evs[1].New}); d != "" {
						r.Errorf("changed (-want +got):\n%s", d)
					}
				}
				v := r.one()
				cfg := r.w.kids()["web/eth0"].cfg
				if cfg.Address != v.Binding.Address || cfg.Router != v.Binding.Router || cfg.MTU != v.Binding.MTU {
					r.Errorf("the kernel has %+v, the binding is %+v", cfg, v.Binding)
				}
			})
		})
	}
}

// Answers that lie change nothing: the true one that follows counts.
func TestLies(t *testing.T) {
	alter := func(f func(m *dhcpv4.DHCPv4)) func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		return func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			lie, err := dhcpv4.FromBytes(reply.ToBytes())
			if err != nil {
				panic(err)
			}
			f(lie)
			return []*dhcpv4.DHCPv4{lie, reply}
		}
	}
	set := func(m *dhcpv4.DHCPv4, code dhcpv4.OptionCode, v ...byte) {
		m.Options[code.Code()] = v
	}
	elsewhere := func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{192, 0, 2, 66} }
	for name, lie := range map[string]func(m *dhcpv4.DHCPv4){
		"another transaction": func(m *dhcpv4.DHCPv4) { m.TransactionID[0] ^= 1; elsewhere(m) },
		"another client":      func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = []byte{2, 9, 9, 9, 9, 9}; elsewhere(m) },
		"another client id":   func(m *dhcpv4.DHCPv4) { set(m, dhcpv4.OptionClientIdentifier, 1, 2, 3); elsewhere(m) },
		"a request":           func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootRequest; elsewhere(m) },
		"no server":           func(m *dhcpv4.DHCPv4) { delete(m.Options, dhcpv4.OptionServerIdentifier.Code()); elsewhere(m) },
		"denied server":       func(m *dhcpv4.DHCPv4) { set(m, dhcpv4.OptionServerIdentifier, 10, 0, 0, 66); elsewhere(m) },
		"zero lease":          func(m *dhcpv4.DHCPv4) { set(m, dhcpv4.OptionIPAddressLeaseTime, 0, 0, 0, 0); elsewhere(m) },
		"no lease":            func(m *dhcpv4.DHCPv4) { delete(m.Options, dhcpv4.OptionIPAddressLeaseTime.Code()); elsewhere(m) },
		"no address":          func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{0, 0, 0, 0} },
		"multicast address":   func(m *dhcpv4.DHCPv4) { m.YourIPAddr = []byte{224, 0, 0, 1} },
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				r.w.srv.lie = alter(lie)
				o := r.options("web", r.w.addSpace("web"))
				o.Spec.Deny = []netip.Addr{netip.MustParseAddr("10.0.0.66")}
				if _, err := r.attachTo(o); err != nil {
					r.Fatal(err)
				}
				time.Sleep(3 * 24 * time.Hour)
				if got := r.onKid("web/eth0"); got != "10.0.1.1/16" {
					r.Errorf("the kernel has %q", got)
				}
				c := r.k.EventCounts()
				if c[EvRenewed] < 10 || c[EvBound] != 1 || c[EvNAK]+c[EvExpired]+c[EvChanged] > 0 {
					r.Errorf("events %v", c)
				}
			})
		})
	}
}

// A lease for ever is never asked for again.
func TestInfiniteLease(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.srv.lease = dhcpclient.Infinite
		r.attach("web")
		r.settle()
		r.w.messages()
		time.Sleep(2 * 365 * 24 * time.Hour)
		r.wire()
		r.want(EvBound)
		if got := r.onKid("web/eth0"); got != "10.0.1.1/16" {
			r.Errorf("the kernel has %q", got)
		}
	})
}

// Renew asks at once, and says what came of it.
func TestRenewNow(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		r.w.messages()
		if got, err := r.k.Renew(r.Context(), rec.ID); err != nil || got.Renewals != 1 {
			r.Errorf("renewed %d times, %v", got.Renewals, err)
		}
		r.wire("REQUEST udp unicast")
		r.server(func(s *server) { s.up = false })
		if got, err := r.k.Renew(r.Context(), rec.ID); err == nil || !got.State.HasAddress() {
			r.Errorf("without a server: %s, %v", got.State, err)
		}
		if _, err := r.k.Renew(r.Context(), "nosuch"); err == nil {
			r.Error("renewed a lease that is not there")
		}
		time.Sleep(13 * time.Hour)
		synctest.Wait()
		if _, err := r.k.Renew(r.Context(), rec.ID); err == nil {
			r.Error("renewed an expired lease without a server")
		}
		r.server(func(s *server) { s.up = true })
		if got, err := r.k.Renew(r.Context(), rec.ID); err != nil || got.State != Bound {
			r.Errorf("expired lease: %s, %v", got.State, err)
		}
	})
}

// An address that the server refuses is not announced any more, however soon
// after it was bound.
func TestNAKEndsAnnouncements(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		addr := rec.Binding.Address.Addr()
		time.Sleep(time.Second)
		r.server(func(s *server) {
			s.drop(rec.Spec.MAC.String())
			s.bad[addr] = never
		})
		if _, err := r.k.Renew(r.Context(), rec.ID); err == nil {
			r.Fatal("renewed")
		}
		r.server(func(s *server) { s.up = false }) // nothing takes its place
		announced := func() int {
			r.w.mu.Lock()
			defer r.w.mu.Unlock()
			return r.w.announced[addr]
		}
		before := announced()
		r.settle()
		if n := announced() - before; n > 0 {
			r.Errorf("announced %d times after it was lost", n)
		}
	})
}
