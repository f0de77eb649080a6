// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var held = Binding{Address: netip.PrefixFrom(leased, 24), Server: serverA, NextHopMAC: serverMAC, Lease: time.Hour}

// Renew and Rebind differ in where the one REQUEST goes.
func TestExtend(t *testing.T) {
	const patience = 30 * time.Second
	moved := leased.Next()
	tests := []struct {
		name   string
		params Params
		serve  func(c *fakeConn, m *dhcpv4.DHCPv4)
		addr   netip.Addr // zero: an error
		server netip.Addr
		nak    netip.Addr
		took   time.Duration
	}{
		{name: "acknowledged", addr: leased, server: serverA, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(time.Second, ackOf(m, serverA, leased))
		}},
		{name: "by another server", addr: leased, server: serverB, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(time.Second, ackOf(m, serverB, leased))
		}},
		{name: "by a denied server", params: Params{DenyServers: []netip.Addr{serverB}}, addr: leased, server: serverA, took: 2 * time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(0, nakOf(m, serverB, "mine"))
			c.reply(time.Second, ackOf(m, serverB, leased))
			c.reply(2*time.Second, ackOf(m, serverA, leased))
		}},
		{name: "another address", addr: moved, server: serverA, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(time.Second, ackOf(m, serverA, moved))
		}},
		{name: "refused", nak: serverA, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(time.Second, nakOf(m, serverA, "no"))
		}},
		{name: "refused by another server", nak: serverB, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			c.reply(time.Second, nakOf(m, serverB, "no"))
		}},
		{name: "forged refusals", addr: leased, server: serverA, took: time.Second, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) {
			forged := nakOf(m, serverA, "no")
			forged.TransactionID[0]++
			c.reply(0, forged)
			c.reply(0, answer(m, dhcpv4.MessageTypeNak, serverA, leased, dhcpv4.WithHwAddr(otherMAC)))
			c.reply(0, answer(m, dhcpv4.MessageTypeNak, serverA, leased, dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier)))
			c.reply(time.Second, ackOf(m, serverA, leased))
		}},
		{name: "silence", took: patience, serve: func(*fakeConn, *dhcpv4.DHCPv4) {}},
		{name: "offers only", took: patience, serve: func(c *fakeConn, m *dhcpv4.DHCPv4) { c.reply(0, offerOf(m, serverA, leased)) }},
	}
	kinds := []struct {
		name string
		run  func(c *Client, ctx context.Context) (Binding, error)
		to   netip.Addr
	}{
		{"Renew", func(c *Client, ctx context.Context) (Binding, error) { return c.Renew(ctx, held) }, serverA},
		{"Rebind", func(c *Client, ctx context.Context) (Binding, error) { return c.Rebind(ctx, held) }, limitedBroadcast},
	}
	for _, kind := range kinds {
		for _, tt := range tests {
			t.Run(kind.name+"/"+tt.name, func(t *testing.T) {
				within(t, patience, func(t *testing.T, ctx context.Context) {
					conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, _ int) { tt.serve(c, m) })
					c := newClient(t, conn)
					c.AllowServers, c.DenyServers = tt.params.AllowServers, tt.params.DenyServers
					start := time.Now()
					b, err := kind.run(c, ctx)
					if took := time.Since(start); took != tt.took {
						t.Errorf("took %v, want %v", took, tt.took)
					}
					if len(conn.sent) != 1 || conn.sent[0].to != kind.to {
						t.Fatalf("sent %v", conn.sent)
					}
					if m := conn.sent[0]; !m.ClientIPAddr.Equal(ipOf(leased)) || m.IsBroadcast() ||
						m.Options.Has(dhcpv4.OptionRequestedIPAddress) || m.Options.Has(dhcpv4.OptionServerIdentifier) {
						t.Errorf("REQUEST is not as RFC 2131, 4.3.2 has it:\n%v", m.Summary())
					}
					var nak *NAKError
					switch {
					case tt.addr.IsValid():
						if err != nil || b.Address.Addr() != tt.addr || b.Server != tt.server || !b.Requested.Equal(start) {
							t.Errorf("got %+v, %v", b, err)
						}
					case tt.nak.IsValid():
						if !errors.As(err, &nak) || nak.Server != tt.nak {
							t.Errorf("error %v, want a NAK of %v", err, tt.nak)
						}
					default:
						if !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("error %v, want ErrNoAnswer", err)
						}
					}
				})
			})
		}
	}
}

// A UDP socket does not see link addresses; the old next hop stays then.
func TestRenewKeepsNextHop(t *testing.T) {
	tests := []struct {
		name   string
		server netip.Addr
		want   bool
	}{
		{"same server", serverA, true},
		{"another server", serverB, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, _ int) {
				c.inbox <- Received{Message: ackOf(m, tt.server, leased), From: tt.server}
			})
			b, err := newClient(t, conn).Renew(t.Context(), held)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.NextHopMAC != nil; got != tt.want {
				t.Errorf("next hop is %v", b.NextHopMAC)
			}
		})
	}
}

func TestRenewSendError(t *testing.T) {
	for _, sendErr := range []error{syscall.EPERM, syscall.ENETDOWN} {
		conn := newFakeConn(nil)
		conn.sendErr = sendErr
		_, err := newClient(t, conn).Renew(t.Context(), held)
		if !errors.Is(err, sendErr) {
			t.Errorf("error %v, want %v at once", err, sendErr)
		}
	}
}

func TestReboot(t *testing.T) {
	tests := []struct {
		name  string
		after int // answered on which REQUEST
		reply func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4
		nak   bool
	}{
		{"at once", 1, func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return ackOf(m, serverA, leased) }, false},
		{"at the fourth try", 4, func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return ackOf(m, serverB, leased) }, false},
		{"refused", 2, func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nakOf(m, serverB, "lease not found") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					if n == tt.after {
						c.reply(time.Millisecond, tt.reply(m))
					}
				})
				b, err := newClient(t, conn).Reboot(ctx, leased)
				var nak *NAKError
				if errors.As(err, &nak) != tt.nak || !tt.nak && (err != nil || b.Address.Addr() != leased) {
					t.Errorf("got %v, %v", b.Address, err)
				}
				if len(conn.sent) != tt.after {
					t.Errorf("sent %v", conn.types())
				}
				for i, m := range conn.sent {
					if m.to != limitedBroadcast || m.MessageType() != request || !m.ClientIPAddr.IsUnspecified() ||
						!m.RequestedIPAddress().Equal(ipOf(leased)) || m.Options.Has(dhcpv4.OptionServerIdentifier) {
						t.Errorf("REQUEST %d is not as RFC 2131, 4.3.2 has it:\n%v", i, m.Summary())
					}
					if m.IsBroadcast() != (i >= broadcastAfter) || m.NumSeconds != uint16(m.at/time.Second) {
						t.Errorf("REQUEST %d after %v has broadcast flag %v and secs %d", i, m.at, m.IsBroadcast(), m.NumSeconds)
					}
				}
			})
		})
	}
	t.Run("silence", func(t *testing.T) {
		within(t, 10*time.Second, func(t *testing.T, ctx context.Context) {
			_, err := newClient(t, newFakeConn(nil)).Reboot(ctx, leased)
			if !errors.Is(err, ErrNoAnswer) {
				t.Errorf("error %v, want ErrNoAnswer", err)
			}
		})
	})
}

func TestRelease(t *testing.T) {
	conn := newFakeConn(nil)
	if err := newClient(t, conn).Release(held); err != nil {
		t.Fatal(err)
	}
	m := conn.sent[0]
	if m.to != serverA || m.MessageType() != dhcpv4.MessageTypeRelease || !m.ClientIPAddr.Equal(ipOf(leased)) ||
		!m.ServerIdentifier().Equal(ipOf(serverA)) || m.Options.Has(dhcpv4.OptionRequestedIPAddress) || m.Message() == "" {
		t.Errorf("to %v:\n%v", m.to, m.Summary())
	}
}

func TestDecline(t *testing.T) {
	conn := newFakeConn(nil)
	if err := newClient(t, conn).Decline(leased, serverA, "in use by\n"+strings.Repeat("x", 300)); err != nil {
		t.Fatal(err)
	}
	m := conn.sent[0]
	if m.to != limitedBroadcast || m.MessageType() != decline || !m.ClientIPAddr.IsUnspecified() ||
		!m.ServerIdentifier().Equal(ipOf(serverA)) || !m.RequestedIPAddress().Equal(ipOf(leased)) ||
		!strings.HasPrefix(m.Message(), "in use by?x") || len(m.Message()) != 255 {
		t.Errorf("to %v:\n%v", m.to, m.Summary())
	}
}

func TestDiscover(t *testing.T) {
	third := netip.MustParseAddr("10.0.0.3")
	within(t, 2*time.Second, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
			c.reply(time.Millisecond, offerOf(m, serverA, leased))
			c.reply(500*time.Millisecond, offerOf(m, serverB, leased.Next(), dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Minute))))
			c.reply(time.Millisecond, offerOf(m, netip.MustParseAddr("10.0.0.4"), leased, dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(0))))
			if n == 3 {
				c.reply(550*time.Millisecond, offerOf(m, third, leased))
			}
		})
		start := time.Now()
		offers, err := newClient(t, conn).Discover(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v, want the whole window", took)
		}
		var servers []netip.Addr
		for _, o := range offers {
			servers = append(servers, o.Server)
			if o.FromMAC.String() != serverMAC.String() {
				t.Errorf("offer from %v", o.FromMAC)
			}
		}
		if diff := cmp.Diff([]netip.Addr{serverA, serverB, third}, servers, cmpAddrs); diff != "" {
			t.Errorf("servers (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]dhcpv4.MessageType{discover, discover, discover}, conn.types()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
	})
}

func TestDiscoverFlood(t *testing.T) {
	within(t, 2*time.Second, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
			server := netip.MustParseAddr("10.1.0.1")
			for range 1000 {
				c.reply(0, offerOf(m, server, leased))
				server = server.Next()
			}
		})
		offers, err := newClient(t, conn).Discover(ctx)
		if err != nil || len(offers) != maxOffers {
			t.Errorf("%d offers, %v", len(offers), err)
		}
	})
}

func TestDiscoverNobody(t *testing.T) {
	within(t, 2*time.Second, func(t *testing.T, ctx context.Context) {
		offers, err := newClient(t, newFakeConn(nil)).Discover(ctx)
		if !errors.Is(err, ErrNoAnswer) || offers != nil {
			t.Errorf("got %v, %v", offers, err)
		}
	})
}
