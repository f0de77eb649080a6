// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Timing of address conflict detection (RFC 5227, 1.1).
const (
	ProbeWait         = 1 * time.Second
	ProbeNum          = 3
	ProbeMin          = 1 * time.Second
	ProbeMax          = 2 * time.Second
	AnnounceWait      = 2 * time.Second
	AnnounceNum       = 2
	AnnounceInterval  = 2 * time.Second
	MaxConflicts      = 10
	RateLimitInterval = 60 * time.Second
	DefendInterval    = 10 * time.Second
)

// FastWait is how long ConflictFast listens after the ACK.
const FastWait = 20 * time.Millisecond

// DeclineWait is the least time between a DECLINE and the next DISCOVER
// (RFC 2131, 3.1.5).
const DeclineWait = 10 * time.Second

// CheckConflict sends probes for addr and listens for another host that has it
// or wants it, all with the timing of RFC 5227, 2.1.1 (for 3 probes 4 to 7 s).
// It returns a *ConflictError as soon as there is one, nil when there is none,
// and an error that wraps ctx.Err() when ctx ends first. mac is the own address.
func CheckConflict(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr, probes int) error {
	return check(ctx, arp, mac, addr, probes, conflicts)
}

// CheckInUse is CheckConflict for an address that is in use already: another
// host that probes for it is no conflict, it is answered by ARP like anybody who
// asks (RFC 5227, 2.4).
func CheckInUse(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr, probes int) error {
	return check(ctx, arp, mac, addr, probes, claims)
}

func check(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr, probes int, is conflictTest) error {
	wait := randomBetween(0, ProbeWait)
	for n := range probes {
		if err := listen(ctx, arp, mac, addr, wait, is); err != nil {
			return err
		}
		if err := arp.Probe(addr); err != nil {
			return fmt.Errorf("ARP probe for %v: %w", addr, err)
		}
		wait = randomBetween(ProbeMin, ProbeMax)
		if n == probes-1 {
			wait = AnnounceWait
		}
	}
	return listen(ctx, arp, mac, addr, wait, is)
}

// WatchConflict listens until ctx is done, and returns nil then, or until
// another host uses addr: a *ConflictError.
func WatchConflict(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr) error {
	return watch(ctx, arp, mac, addr, conflicts)
}

func watch(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr, is conflictTest) error {
	for {
		p, err := arp.Receive(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listening for ARP about %v: %w", addr, err)
		case is(p, mac, addr):
			return &ConflictError{Addr: addr, By: bytes.Clone(p.SenderMAC)}
		}
	}
}

// Announce tells the link that addr is ours now, AnnounceNum times,
// AnnounceInterval apart (RFC 5227, 2.3).
func Announce(ctx context.Context, arp ARPConn, addr netip.Addr) error {
	for n := range AnnounceNum {
		if n > 0 && !sleep(ctx, AnnounceInterval) {
			return ctx.Err()
		}
		if err := arp.Announce(addr); err != nil {
			return fmt.Errorf("ARP announcement of %v: %w", addr, err)
		}
	}
	return nil
}

// conflictTest reports whether p is a conflict about addr for the host with mac.
type conflictTest func(p ARPPacket, mac net.HardwareAddr, addr netip.Addr) bool

// conflicts reports whether p shows another host with addr, or one that probes
// for it at the same time (RFC 5227, 2.1.1).
func conflicts(p ARPPacket, mac net.HardwareAddr, addr netip.Addr) bool {
	probes := p.Request && p.SenderIP.IsUnspecified() && p.TargetIP == addr && !bytes.Equal(p.SenderMAC, mac)
	return probes || claims(p, mac, addr)
}

// claims reports whether p shows another host with addr (RFC 5227, 2.4).
func claims(p ARPPacket, mac net.HardwareAddr, addr netip.Addr) bool {
	return p.SenderIP == addr && !bytes.Equal(p.SenderMAC, mac)
}

// listen is watch for d at the longest.
func listen(ctx context.Context, arp ARPConn, mac net.HardwareAddr, addr netip.Addr, d time.Duration, is conflictTest) error {
	wait, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if err := watch(wait, arp, mac, addr, is); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("looking for a conflict about %v: %w", addr, ctx.Err())
	}
	return nil
}

// verify looks for a conflict about the address that was just acknowledged. What
// arrived since the ARP socket was opened, the answer to the probe that left
// before the REQUEST above all, waits in the socket and is read first.
func (x *exchange) verify(ctx context.Context, b Binding) (Binding, error) {
	addr := b.Address.Addr()
	x.progress("looking whether %v is free", addr)
	var err error
	if x.Conflict == ConflictWait {
		err = CheckConflict(ctx, x.ARP, x.MAC, addr, ProbeNum)
	} else {
		x.probe(addr) // what Requested opened the link to has not been asked yet
		err = listen(ctx, x.ARP, x.MAC, addr, FastWait, conflicts)
	}
	var conflict *ConflictError
	if !errors.As(err, &conflict) {
		return b, err
	}
	conflict.Server = b.Server
	conflict.Declined = x.Decline(addr, b.Server, fmt.Sprintf("in use by %v", conflict.By)) == nil
	return Binding{}, conflict
}

// probe is a probe whose loss is no reason to fail.
func (x *exchange) probe(addr netip.Addr) {
	if err := x.ARP.Probe(addr); err != nil {
		x.logger().Debug("ARP probe not sent", "mac", x.MAC.String(), "address", addr, "err", err)
	}
}

func randomBetween(low, high time.Duration) time.Duration {
	return low + rand.N(high-low)
}
