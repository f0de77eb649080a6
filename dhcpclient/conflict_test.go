// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	holder       = ARPPacket{SenderMAC: otherMAC, SenderIP: leased, TargetIP: netip.IPv4Unspecified()}
	sameTime     = ARPPacket{Request: true, SenderMAC: otherMAC, SenderIP: netip.IPv4Unspecified(), TargetIP: leased}
	askedByOther = ARPPacket{Request: true, SenderMAC: otherMAC, SenderIP: serverA, TargetIP: leased}
	ownProbe     = ARPPacket{Request: true, SenderMAC: clientMAC, SenderIP: netip.IPv4Unspecified(), TargetIP: leased}
	ownAnswer    = ARPPacket{SenderMAC: clientMAC, SenderIP: leased, TargetIP: leased}
	otherAddress = ARPPacket{SenderMAC: otherMAC, SenderIP: serverA, TargetIP: leased}
)

func TestConflicts(t *testing.T) {
	tests := []struct {
		name string
		p    ARPPacket
		want bool
	}{
		{"reply of a holder", holder, true},
		{"announcement of a holder", ARPPacket{Request: true, SenderMAC: otherMAC, SenderIP: leased, TargetIP: leased}, true},
		{"holder asks for somebody", ARPPacket{Request: true, SenderMAC: otherMAC, SenderIP: leased, TargetIP: serverA}, true},
		{"probe of another", sameTime, true},
		{"reply that looks like a probe", ARPPacket{SenderMAC: otherMAC, SenderIP: netip.IPv4Unspecified(), TargetIP: leased}, false},
		{"server looks for the address", askedByOther, false},
		{"own probe comes back", ownProbe, false},
		{"own answer comes back", ownAnswer, false},
		{"another address", otherAddress, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := conflicts(tt.p, clientMAC, leased); got != tt.want {
				t.Errorf("conflicts = %v", got)
			}
		})
	}
}

func TestAcquireConflict(t *testing.T) {
	const rtt = 2 * time.Millisecond // of goodServer, twice
	type answerTo struct {
		probe int
		after time.Duration
		p     ARPPacket
	}
	tests := []struct {
		name     string
		check    ConflictCheck
		answers  []answerTo
		conflict bool
		least    time.Duration
		most     time.Duration
		probes   int
	}{
		{name: "off", check: ConflictOff, answers: []answerTo{{1, 0, holder}}, least: rtt, most: rtt},
		{name: "async", check: ConflictAsync, answers: []answerTo{{1, 0, holder}}, least: rtt, most: rtt},
		{name: "zero value", answers: []answerTo{{1, 0, holder}}, least: rtt, most: rtt},

		{name: "fast, nobody", check: ConflictFast, least: rtt + FastWait, most: rtt + FastWait, probes: 2},
		{name: "fast, harmless", check: ConflictFast, answers: []answerTo{{1, 0, askedByOther}, {1, 0, ownProbe}, {2, 0, otherAddress}}, least: rtt + FastWait, most: rtt + FastWait, probes: 2},
		{name: "fast, before the ACK", check: ConflictFast, answers: []answerTo{{1, time.Microsecond, holder}}, conflict: true, least: rtt, most: rtt, probes: 2},
		{name: "fast, a sibling after the ACK", check: ConflictFast, answers: []answerTo{{2, time.Millisecond, holder}}, conflict: true, least: rtt + time.Millisecond, most: rtt + time.Millisecond, probes: 2},
		{name: "fast, slow holder", check: ConflictFast, answers: []answerTo{{1, 15 * time.Millisecond, holder}}, conflict: true, least: 0, most: rtt + FastWait, probes: 2},
		{name: "fast, too slow a holder", check: ConflictFast, answers: []answerTo{{1, 30 * time.Millisecond, holder}}, least: rtt + FastWait, most: rtt + FastWait, probes: 2},
		{name: "fast, at the same time", check: ConflictFast, answers: []answerTo{{1, time.Microsecond, sameTime}}, conflict: true, least: rtt, most: rtt, probes: 2},

		{name: "wait, nobody", check: ConflictWait, least: rtt + 4*time.Second, most: rtt + 7*time.Second, probes: ProbeNum},
		{name: "wait, second probe", check: ConflictWait, answers: []answerTo{{2, time.Millisecond, holder}}, conflict: true, least: rtt + time.Second, most: rtt + 3*time.Second + time.Millisecond, probes: 2},
		{name: "wait, after the last", check: ConflictWait, answers: []answerTo{{3, time.Second, sameTime}}, conflict: true, least: rtt + 3*time.Second, most: rtt + 6*time.Second, probes: 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(goodServer)
				acked := 0
				arp := newFakeARP(func(a *fakeARP, n int, addr netip.Addr) {
					if addr != leased {
						t.Errorf("probe for %v", addr)
					}
					if before := tt.check == ConflictFast && n == 1; before != (acked == 0) {
						t.Errorf("probe %d went out with Requested called %d times", n, acked)
					}
					for _, answer := range tt.answers {
						if answer.probe == n {
							a.arrive(answer.after, answer.p)
						}
					}
				})
				c := newClient(t, conn)
				c.ARP, c.Conflict = arp, tt.check
				c.Requested = func(context.Context) error { acked++; return nil }
				start := time.Now()
				b, err := c.Acquire(ctx)
				if took := time.Since(start); took < tt.least || took > tt.most {
					t.Errorf("took %v, want %v to %v", took, tt.least, tt.most)
				}
				if len(arp.probes) != tt.probes || acked != 1 {
					t.Errorf("%d probes and %d calls of Requested, want %d and 1", len(arp.probes), acked, tt.probes)
				}
				if !tt.conflict {
					if err != nil || b.Address.Addr() != leased {
						t.Errorf("got %v, %v", b.Address, err)
					}
					return
				}
				wantConflict(t, err, ConflictError{Addr: leased, Server: serverA, By: otherMAC, Declined: true}, conn)
				if b.Address.IsValid() {
					t.Errorf("a declined address is returned: %v", b.Address)
				}
			})
		})
	}
}

func wantConflict(t *testing.T, err error, want ConflictError, conn *fakeConn) {
	t.Helper()
	var got *ConflictError
	if !errors.As(err, &got) {
		t.Fatalf("error %v, want a *ConflictError", err)
	}
	if want.Err != nil && !errors.Is(err, want.Err) {
		t.Errorf("error %v does not wrap %v", err, want.Err)
	}
	got.Err, want.Err = nil, nil
	if diff := cmp.Diff(want, *got, cmpAddrs); diff != "" {
		t.Errorf("conflict (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]dhcpv4.MessageType{discover, request, decline}, conn.types()); diff != "" {
		t.Fatalf("messages (-want +got):\n%s", diff)
	}
	m := conn.sent[2]
	if m.to != limitedBroadcast || !m.ClientIPAddr.IsUnspecified() ||
		!m.RequestedIPAddress().Equal(ipOf(want.Addr)) || !m.ServerIdentifier().Equal(ipOf(want.Server)) {
		t.Errorf("DECLINE to %v:\n%s", m.to, m.Summary())
	}
}

func TestAcquireCheck(t *testing.T) {
	inUse := errors.New("a sibling has it")
	tests := []struct {
		name   string
		silent bool // no ACK
		took   time.Duration
	}{
		{"acknowledged", false, 2 * time.Millisecond},
		{"not acknowledged", true, time.Millisecond + declineWait},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
					if m.MessageType() == discover || !tt.silent {
						goodServer(c, m, n)
					}
				})
				c := newClient(t, conn)
				c.Check = func(_ context.Context, offer Binding) error {
					if offer.Address.Addr() != leased || offer.Server != serverA || conn.count(request) != 0 {
						t.Errorf("asked about %v after %v", offer, conn.types())
					}
					return inUse
				}
				c.Requested = func(context.Context) error { t.Error("Requested was called"); return nil }
				start := time.Now()
				_, err := c.Acquire(ctx)
				wantConflict(t, err, ConflictError{Addr: leased, Server: serverA, Declined: true, Err: inUse}, conn)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestVerifyCancelled(t *testing.T) {
	within(t, 2*time.Second, func(t *testing.T, ctx context.Context) {
		c := newClient(t, newFakeConn(goodServer))
		c.ARP, c.Conflict = newFakeARP(nil), ConflictWait
		b, err := c.Acquire(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || b.Address.Addr() != leased {
			t.Errorf("got %v, %v; want the binding, which has to be released, and the error", b.Address, err)
		}
	})
}

func TestCheckConflictTiming(t *testing.T) {
	for range 50 {
		within(t, time.Minute, func(t *testing.T, ctx context.Context) {
			arp := newFakeARP(nil)
			start := time.Now()
			if err := CheckConflict(ctx, arp, clientMAC, leased, ProbeNum); err != nil {
				t.Fatal(err)
			}
			if len(arp.probes) != ProbeNum {
				t.Fatalf("%d probes", len(arp.probes))
			}
			if wait := arp.probes[0].Sub(start); wait > ProbeWait {
				t.Errorf("first probe after %v", wait)
			}
			for i := 1; i < ProbeNum; i++ {
				if gap := arp.probes[i].Sub(arp.probes[i-1]); gap < ProbeMin || gap > ProbeMax {
					t.Errorf("probe %d came %v after the one before", i+1, gap)
				}
			}
			if rest := time.Since(arp.probes[ProbeNum-1]); rest != AnnounceWait {
				t.Errorf("listened %v after the last probe", rest)
			}
		})
	}
}

func TestCheckInUse(t *testing.T) {
	for name, tt := range map[string]struct {
		p        ARPPacket
		conflict bool
	}{
		"probe of another":  {sameTime, false},
		"reply of a holder": {holder, true},
	} {
		t.Run(name, func(t *testing.T) {
			within(t, time.Minute, func(t *testing.T, ctx context.Context) {
				arp := newFakeARP(func(a *fakeARP, n int, _ netip.Addr) {
					if n == 2 {
						a.arrive(time.Millisecond, tt.p)
					}
				})
				err := CheckInUse(ctx, arp, clientMAC, leased, ProbeNum)
				var conflict *ConflictError
				if errors.As(err, &conflict) != tt.conflict || !tt.conflict && (err != nil || len(arp.probes) != ProbeNum) {
					t.Errorf("error %v after %d probes", err, len(arp.probes))
				}
			})
		})
	}
}

func TestWatchConflict(t *testing.T) {
	within(t, time.Hour, func(t *testing.T, ctx context.Context) {
		arp := newFakeARP(nil)
		arp.arrive(time.Minute, otherAddress)
		arp.arrive(10*time.Minute, holder)
		start := time.Now()
		err := WatchConflict(ctx, arp, clientMAC, leased)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || conflict.By.String() != otherMAC.String() || time.Since(start) != 10*time.Minute {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		if err := WatchConflict(ctx, arp, clientMAC, leased); err != nil {
			t.Errorf("error %v at the end of the context", err)
		}
	})
}

func TestAnnounce(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		arp := newFakeARP(nil)
		start := time.Now()
		if err := Announce(ctx, arp, leased); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]netip.Addr{leased, leased}, arp.announced, cmpAddrs); diff != "" || time.Since(start) != AnnounceInterval {
			t.Errorf("after %v (-want +got):\n%s", time.Since(start), diff)
		}
	})
}
