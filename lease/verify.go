// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
)

// verifyDelay lets the answer to an attach out first.
const verifyDelay = 5 * time.Millisecond

// startVerify announces the address of a lease that was just bound (RFC 5227,
// 2.3) and, by its conflict check, goes on probing for it in the background.
func (k *Keeper) startVerify(e *entry) {
	r := k.record(e)
	ctx, cancel := context.WithTimeout(k.ctx, 30*time.Second)
	k.endVerify(e)
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		cancel()
		return
	}
	e.stopVerify = cancel
	k.wg.Add(1)
	k.mu.Unlock()
	go func() {
		defer k.wg.Done()
		defer cancel()
		select {
		case <-time.After(verifyDelay):
		case <-ctx.Done():
			return
		}
		select {
		case k.verify <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := k.watch(ctx, r)
		<-k.verify
		var conflict *dhcpclient.ConflictError
		switch {
		case errors.As(err, &conflict):
			k.conflicted(e, conflict)
		case err != nil && ctx.Err() == nil:
			k.log.Warn("conflict check failed", "lease", r.ID, "error", err)
		}
	}()
}

// endVerify stops the background check of an entry.
func (k *Keeper) endVerify(e *entry) {
	k.mu.Lock()
	stop := e.stopVerify
	e.stopVerify = nil
	k.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// watch announces, probes as often as the check asks for, and announces again.
func (k *Keeper) watch(ctx context.Context, r Record) error {
	arp, err := k.host.ARP(r.NS, r.Child)
	if err != nil {
		return err
	}
	defer arp.Close()
	addr := r.Binding.Address.Addr()
	if err := arp.Announce(addr); err != nil {
		return err
	}
	if n := map[dhcpclient.ConflictCheck]int{dhcpclient.ConflictFast: 2, dhcpclient.ConflictAsync: dhcpclient.ProbeNum}[r.Spec.Conflict]; n > 0 {
		if err := dhcpclient.CheckInUse(ctx, arp, r.Spec.MAC, addr, n); err != nil && !k.besides(r, err) {
			return err
		}
	}
	return dhcpclient.Announce(ctx, arp, addr)
}

// besides reports whether a conflict is with a child in the same namespace. Those
// that CreateChild made speak for themselves only; an engine's do not.
func (k *Keeper) besides(r Record, err error) bool {
	var conflict *dhcpclient.ConflictError
	return errors.As(err, &conflict) && k.beside(r, conflict.By)
}

// conflicted gives up an address that another host turned out to have: DECLINE,
// the address off, and declineWait before INIT.
func (k *Keeper) conflicted(e *entry, conflict *dhcpclient.ConflictError) {
	_, release, err := k.own(k.ctx, e, true)
	if err != nil {
		return
	}
	defer release()
	r := k.record(e)
	if r.Binding == nil || r.Binding.Address.Addr() != conflict.Addr || !r.State.HasAddress() {
		return
	}
	conflict.Server = r.Binding.Server
	if r.Spec.Static.IsValid() {
		// nobody to tell
	} else if conn, err := k.host.Packet(r.NS, r.Child, netip.Addr{}, nil); err == nil {
		c := dhcpclient.Client{Params: r.request(), Conn: conn, Log: k.log}
		err = c.Decline(conflict.Addr, conflict.Server, "address in use by "+conflict.By.String())
		conn.Close()
		conflict.Declined = err == nil
	}
	k.lose(e, conflict, declineWait)
	k.event(EvConflict, r, "%v", conflict)
}
