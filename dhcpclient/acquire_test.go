// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
)

// within runs f in simulated time under a context of d.
func within(t *testing.T, d time.Duration, f func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		f(t, ctx)
	})
}

func TestAcquire(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(goodServer)
		c := newClient(t, conn)
		start := time.Now()
		b, err := c.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 2*time.Millisecond {
			t.Errorf("Acquire took %v, want the 2 ms of the server", got)
		}
		want := Binding{
			Address:    netip.PrefixFrom(leased, 24),
			Server:     serverA,
			NextHopMAC: serverMAC,
			Router:     serverA,
			Lease:      time.Hour,
			Requested:  start.Add(time.Millisecond),
		}
		b.T1, b.T2 = 0, 0
		if diff := cmp.Diff(want, b, cmpAddrs); diff != "" {
			t.Errorf("binding (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]dhcpv4.MessageType{discover, request}, conn.types()); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		d, r := conn.sent[0], conn.sent[1]
		if d.TransactionID != r.TransactionID || d.NumSeconds != r.NumSeconds {
			t.Errorf("REQUEST has xid %v and secs %d, DISCOVER %v and %d", r.TransactionID, r.NumSeconds, d.TransactionID, d.NumSeconds)
		}
	})
}

// Replies that must be passed over, each followed by a good one.
func TestAcquireIgnores(t *testing.T) {
	edit := func(f func(m *dhcpv4.DHCPv4)) dhcpv4.Modifier { return f }
	tests := []struct {
		name  string
		offer func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4
		ack   func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4
	}{
		{name: "offer with another xid", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, edit(func(m *dhcpv4.DHCPv4) { m.TransactionID[0]++ }))
		}},
		{name: "offer for another MAC", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, dhcpv4.WithHwAddr(otherMAC))
		}},
		{name: "offer for a longer MAC", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, dhcpv4.WithHwAddr(append(clientMAC[:6:6], 0)))
		}},
		{name: "offer with another client identifier", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte("other"))))
		}},
		{name: "request instead of reply", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, edit(func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootRequest }))
		}},
		{name: "ACK before there was a REQUEST", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return ackOf(m, serverB, leased) }},
		{name: "NAK before there was a REQUEST", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nakOf(m, serverB, "no") }},
		{name: "offer without server identifier", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier))
		}},
		{name: "offer from a multicast server", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, netip.MustParseAddr("224.0.0.1"), leased)
		}},
		{name: "offer without lease time", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, leased, dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime))
		}},
		{name: "offer of 0.0.0.0", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return offerOf(m, serverB, netip.IPv4Unspecified()) }},
		{name: "offer of the broadcast address", offer: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return offerOf(m, serverB, netip.MustParseAddr("10.0.0.255"))
		}},
		{name: "second offer while requesting", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return offerOf(m, serverB, leased) }},
		{name: "ACK of another server", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return ackOf(m, serverB, leased) }},
		{name: "NAK of another server", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nakOf(m, serverB, "not me") }},
		{name: "ACK of another address", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return ackOf(m, serverA, leased.Next()) }},
		{name: "ACK without lease time", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return ackOf(m, serverA, leased, dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(0)))
		}},
		{name: "ACK with another xid", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			return ackOf(m, serverA, leased, edit(func(m *dhcpv4.DHCPv4) { m.TransactionID[3]++ }))
		}},
		{name: "forged NAK with another xid", ack: func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			n := nakOf(m, serverA, "ha")
			n.TransactionID[3]++
			return n
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					if m.MessageType() == discover && tt.offer != nil {
						c.reply(0, tt.offer(m))
					}
					if m.MessageType() == request && tt.ack != nil {
						c.reply(0, tt.ack(m))
					}
					goodServer(c, m, n)
				})
				b, err := newClient(t, conn).Acquire(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if b.Server != serverA || b.Address.Addr() != leased {
					t.Errorf("took %v from %v", b.Address, b.Server)
				}
				if diff := cmp.Diff([]dhcpv4.MessageType{discover, request}, conn.types()); diff != "" {
					t.Errorf("messages (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAcquireRetransmits(t *testing.T) {
	within(t, 10*time.Minute, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(nil)
		c := newClient(t, conn)
		var unanswered []int
		c.Unanswered = func(n int) { unanswered = append(unanswered, n) }
		start := time.Now()
		_, err := c.Acquire(ctx)
		if !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want ErrNoAnswer and the end of the context", err)
		}
		if got := time.Since(start); got != 10*time.Minute {
			t.Errorf("gave up after %v", got)
		}
		for i, s := range conn.sent {
			if s.MessageType() != discover || s.TransactionID != conn.sent[0].TransactionID {
				t.Fatalf("message %d is %v with xid %v", i, s.MessageType(), s.TransactionID)
			}
			if want := i >= broadcastAfter; s.IsBroadcast() != want {
				t.Errorf("broadcast flag of message %d: %v", i, s.IsBroadcast())
			}
			if want := uint16(s.at / time.Second); s.NumSeconds != want {
				t.Errorf("secs of message %d: %d, want %d", i, s.NumSeconds, want)
			}
			if i == 0 {
				continue
			}
			if unanswered[i-1] != i {
				t.Errorf("Unanswered was called with %v", unanswered)
			}
			wait := s.at - conn.sent[i-1].at
			base := min(time.Second<<(i-1), 64*time.Second)
			if wait < base*3/4 || wait > base*5/4 {
				t.Errorf("message %d came %v after the one before, want %v ± 25 %%", i, wait, base)
			}
		}
		if n := len(conn.sent); n < 12 || n > 20 {
			t.Errorf("%d messages in 10 minutes", n)
		}
	})
}

// Stray packets must not put off the retransmission.
func TestAcquireUnderNoise(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
			if n == 3 {
				goodServer(c, m, n)
				return
			}
			for i := range 100 {
				c.reply(time.Duration(i)*30*time.Millisecond, offerOf(m, serverB, leased, dhcpv4.WithHwAddr(otherMAC)))
			}
			if m.MessageType() == request {
				goodServer(c, m, n)
			}
		})
		if _, err := newClient(t, conn).Acquire(ctx); err != nil {
			t.Fatal(err)
		}
		if at := conn.sent[2].at; at < 2250*time.Millisecond || at > 3750*time.Millisecond {
			t.Errorf("third DISCOVER after %v, want 3 s ± 25 %%", at)
		}
	})
}

func TestAcquireWithoutACK(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
			if m.MessageType() == discover || n > requestTries {
				goodServer(c, m, n)
			}
		})
		if _, err := newClient(t, conn).Acquire(ctx); err != nil {
			t.Fatal(err)
		}
		want := []dhcpv4.MessageType{discover, request, request, request, request, discover, request}
		if diff := cmp.Diff(want, conn.types()); diff != "" {
			t.Fatalf("messages (-want +got):\n%s", diff)
		}
		if conn.sent[5].TransactionID == conn.sent[0].TransactionID {
			t.Error("the second DISCOVER is no new transaction")
		}
		for i, want := range []bool{false, false, false, true, true, true, true} {
			if conn.sent[i].IsBroadcast() != want {
				t.Errorf("broadcast flag of message %d is %v", i, !want)
			}
		}
	})
}

func TestAcquireLeaseCountsFromFirstRequest(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
			if m.MessageType() == discover || n == 2 {
				goodServer(c, m, n)
			}
		})
		b, err := newClient(t, conn).Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !b.Requested.Equal(conn.sent[1].t0) {
			t.Errorf("lease counts from %v, the first REQUEST was at %v", b.Requested, conn.sent[1].t0)
		}
	})
}

func TestAcquireNAK(t *testing.T) {
	tests := []struct {
		name    string
		naks    int
		timeout time.Duration
		sent    int
		bound   bool
	}{
		{name: "one", naks: 1, timeout: time.Minute, sent: 4, bound: true},
		{name: "always", naks: 99, timeout: time.Minute, sent: 6},
		{name: "no time left", naks: 99, timeout: time.Second / 2, sent: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, tt.timeout, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					if m.MessageType() == request && n <= tt.naks {
						c.reply(time.Millisecond, nakOf(m, serverA, "wrong\nnetwork"))
						return
					}
					goodServer(c, m, n)
				})
				b, err := newClient(t, conn).Acquire(ctx)
				if len(conn.sent) != tt.sent {
					t.Errorf("sent %v", conn.types())
				}
				if tt.bound {
					if err != nil || b.Address.Addr() != leased {
						t.Errorf("got %v, %v", b.Address, err)
					}
					if wait := conn.sent[2].at - conn.sent[1].at; wait < 750*time.Millisecond {
						t.Errorf("asked again %v after the NAK", wait)
					}
					return
				}
				var nak *NAKError
				if !errors.As(err, &nak) {
					t.Fatalf("error %v, want a *NAKError", err)
				}
				if diff := cmp.Diff(NAKError{Server: serverA, Message: "wrong?network"}, *nak, cmpAddrs); diff != "" {
					t.Errorf("NAK (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAcquireChoosesServer(t *testing.T) {
	addrB := netip.MustParseAddr("10.0.0.99")
	tests := []struct {
		name    string
		params  Params
		afterA  time.Duration
		afterB  time.Duration
		server  netip.Addr
		took    time.Duration // at the most
		refused netip.Addr    // of a *RefusedIPError
		heard   string        // in an error that is ErrNoAnswer
	}{
		{name: "first come", afterA: 2 * time.Millisecond, afterB: time.Millisecond, server: serverB, took: 5 * time.Millisecond},
		{name: "preferred first", params: Params{PreferServer: serverA}, afterA: 1, afterB: 2, server: serverA, took: 5 * time.Millisecond},
		{name: "preferred second", params: Params{PreferServer: serverA}, afterA: 150 * time.Millisecond, afterB: 1, server: serverA, took: 155 * time.Millisecond},
		{name: "preferred too late", params: Params{PreferServer: serverA}, afterA: 300 * time.Millisecond, afterB: 1, server: serverB, took: 205 * time.Millisecond},
		{name: "denied", params: Params{DenyServers: []netip.Addr{serverB}}, afterA: 100 * time.Millisecond, afterB: 1, server: serverA, took: 105 * time.Millisecond},
		{name: "allowed", params: Params{AllowServers: []netip.Addr{serverA}}, afterA: 100 * time.Millisecond, afterB: 1, server: serverA, took: 105 * time.Millisecond},
		{name: "all denied", params: Params{DenyServers: []netip.Addr{serverB, serverA}}, afterA: 1, afterB: 2, took: time.Minute,
			heard: "no DHCP server answered: offer from 10.0.0.1 ignored (denied), offer from 10.0.0.9 ignored (denied)"},
		{name: "none allowed", params: Params{AllowServers: []netip.Addr{addrB}}, afterA: 1, afterB: 2, took: time.Minute, heard: "offer from 10.0.0.9 ignored (not allowed)"},
		{name: "required from the second", params: Params{RequestIP: addrB, RequireIP: true}, afterA: 1, afterB: 100 * time.Millisecond, server: serverB, took: 105 * time.Millisecond},
		{name: "required too late", params: Params{RequestIP: addrB, RequireIP: true}, afterA: 1, afterB: 300 * time.Millisecond, took: 205 * time.Millisecond, refused: leased},
		{name: "requested but not required", params: Params{RequestIP: addrB}, afterA: 1, afterB: 100 * time.Millisecond, server: serverA, took: 5 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					switch {
					case m.MessageType() == discover:
						c.reply(tt.afterA, offerOf(m, serverA, leased))
						c.reply(tt.afterB, offerOf(m, serverB, addrB))
					case net.IP.Equal(m.ServerIdentifier(), ipOf(serverA)):
						c.reply(time.Millisecond, ackOf(m, serverA, leased))
					default:
						c.reply(time.Millisecond, ackOf(m, serverB, addrB))
					}
				})
				c := newClient(t, conn)
				id := c.Params
				c.Params = tt.params
				c.MAC, c.ClientID = id.MAC, id.ClientID
				start := time.Now()
				b, err := c.Acquire(ctx)
				if took := time.Since(start); took > tt.took {
					t.Errorf("took %v, at most %v are in order", took, tt.took)
				}
				var refused *RefusedIPError
				switch {
				case tt.heard != "":
					if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), tt.heard) {
						t.Errorf("error %q, want %q in it", err, tt.heard)
					}
					if !Refused(err) {
						t.Error("the error does not tell refused answers from none")
					}
				case tt.refused.IsValid():
					if !errors.As(err, &refused) || refused.Got != tt.refused || refused.Want != addrB {
						t.Errorf("error %v, want a *RefusedIPError about %v", err, tt.refused)
					}
					if n := conn.count(request); n != 0 {
						t.Errorf("%d REQUESTs for an address that was not wanted", n)
					}
				case err != nil:
					t.Error(err)
				case b.Server != tt.server:
					t.Errorf("took %v, want %v", b.Server, tt.server)
				}
			})
		})
	}
}

// Offers that go on coming do not hold the window open.
func TestAcquireWindowEnds(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Params)
	}{
		{"preferred server", func(p *Params) { p.PreferServer = serverA }},
		{"required address", func(p *Params) { p.RequestIP, p.RequireIP = leased.Next(), true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					if m.MessageType() == request {
						c.reply(0, ackOf(m, serverB, leased))
						return
					}
					for i := range 1000 {
						c.reply(time.Duration(i)*10*time.Millisecond, offerOf(m, serverB, leased))
					}
				})
				c := newClient(t, conn)
				tt.edit(&c.Params)
				start := time.Now()
				_, err := c.Acquire(ctx)
				if took := time.Since(start); took != OfferWindow || c.RequireIP == (err == nil) {
					t.Errorf("took %v: %v", took, err)
				}
			})
		})
	}
}
