// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// indexFor is how long an arpWatch goes by the list of addresses it has made.
const indexFor = time.Second

// arpWatch is the conflict detection of a parent's leases for as long as they
// last (RFC 5227, 2.4): one socket and one goroutine, however many leases there
// are. But for conn, its fields belong to that goroutine.
type arpWatch struct {
	k      *Keeper
	parent string
	conn   dhcpclient.ClaimConn

	// holders are the parent's leases by address, as of made.
	holders map[netip.Addr]holder
	made    time.Duration
	// seen is what was heard about a lease last, by its id.
	seen map[string]sighting
}

// holder is a lease that has an address.
type holder struct {
	e   *entry
	id  string
	mac [6]byte
	// echoes: its own frames come back from the wire, by design (mode vepa).
	echoes bool
}

// sighting is the last claim to a lease's address that something was done about.
type sighting struct {
	at   time.Duration
	addr netip.Addr
	done answer
}

// answer is what was done about a claim.
type answer int

const (
	ignored  answer = iota
	defended        // announced the address
	gaveUp          // declined it and took it off
	reported        // nothing else: the claim was of the lease's own MAC
)

// watched reports whether an entry's address is to be looked after. The lock is
// held.
func (e *entry) watched() bool {
	r := &e.rec
	return r.State.HasAddress() && r.Established && r.Binding != nil && !e.missing && r.Spec.Conflict != dhcpclient.ConflictOff
}

// watchParents opens a listener on every parent that has leases to look after,
// and closes those of parents that have none.
func (k *Keeper) watchParents() {
	wanted := map[string]bool{}
	var idle []*arpWatch
	k.mu.Lock()
	for _, e := range k.leases {
		if e.watched() {
			wanted[e.rec.link()] = true
		}
	}
	for name, w := range k.watches {
		if !wanted[name] {
			delete(k.watches, name)
			idle = append(idle, w)
		}
		delete(wanted, name)
	}
	k.mu.Unlock()
	for _, w := range idle {
		w.conn.Close()
	}
	for name := range wanted {
		p, err := k.host.Parent(name)
		if err != nil || !p.Up {
			continue // the next sweep looks again
		}
		conn, err := k.host.Claims(p)
		if err != nil {
			k.log.Debug("no ARP listener", "parent", name, "error", err)
			continue
		}
		if !k.watchParent(name, conn) {
			conn.Close()
		}
	}
}

// watchParent takes conn over, unless the parent is listened to already.
func (k *Keeper) watchParent(parent string, conn dhcpclient.ClaimConn) bool {
	w := &arpWatch{k: k, parent: parent, conn: conn, holders: map[netip.Addr]holder{}, made: -indexFor, seen: map[string]sighting{}}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.watches[parent] != nil {
		return false
	}
	k.watches[parent] = w
	k.wg.Go(w.run)
	return true
}

// run listens until the parent goes down or away, or the keeper closes the
// watch. The next sweep opens another one if there is need.
func (w *arpWatch) run() {
	stop := context.AfterFunc(w.k.ctx, func() { w.conn.Close() })
	defer stop()
	err := w.conn.Listen(w.heard)
	w.k.log.Debug("ARP listener ended", "parent", w.parent, "error", err)
	w.k.mu.Lock()
	if w.k.watches[w.parent] == w {
		delete(w.k.watches, w.parent)
	}
	w.k.mu.Unlock()
	w.conn.Close()
}

// heard takes one claim. Most are for addresses of others, and cost a look into
// a map.
func (w *arpWatch) heard(c dhcpclient.Claim) {
	now := w.k.clock.Now()
	if now-w.made >= indexFor {
		w.index(now)
	}
	h, ok := w.holders[c.Addr]
	switch {
	case !ok:
	case h.mac != c.MAC:
		w.foreign(h, c, now)
	case !h.echoes && !c.Direct:
		w.own(h, c, now)
	}
}

// index lists the parent's leases by address anew, and forgets what was heard
// of leases that have none any more.
func (w *arpWatch) index(now time.Duration) {
	w.made = now
	clear(w.holders)
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	for id, e := range w.k.leases {
		if e.rec.link() == w.parent && e.watched() && len(e.rec.Spec.MAC) == 6 {
			w.holders[e.rec.Binding.Address.Addr()] = holder{e, id, [6]byte(e.rec.Spec.MAC), e.rec.Spec.Mode == provision.VEPA}
		}
	}
	for id := range w.seen {
		if e := w.k.leases[id]; e == nil || !e.watched() {
			delete(w.seen, id)
		}
	}
}

// sameBurst is how close together claims are taken for one: hosts announce
// themselves several times in a row.
const sameBurst = time.Second

// foreign answers a claim of another MAC: the first one with an announcement
// of our own, the next within DefendInterval with giving the address up
// (RFC 5227, 2.4 (b)).
func (w *arpWatch) foreign(h holder, c dhcpclient.Claim, now time.Duration) {
	last := w.last(h, c)
	since := now - last.at
	switch {
	case last.done == defended && since < sameBurst, last.done == gaveUp && since < dhcpclient.DefendInterval:
		return
	}
	r, ok := w.current(h, c.Addr)
	if !ok || bytes.Equal(r.Spec.MAC, c.MAC[:]) || w.k.beside(r, c.MAC[:]) {
		return
	}
	by := net.HardwareAddr(bytes.Clone(c.MAC[:]))
	if last.done == defended && since < dhcpclient.DefendInterval {
		conflict := &dhcpclient.ConflictError{Addr: c.Addr, By: by}
		if w.job(func() { w.k.conflicted(h.e, conflict) }) {
			w.seen[h.id] = sighting{now, c.Addr, gaveUp}
		}
		return
	}
	if w.job(func() { w.k.defend(r) }) {
		w.seen[h.id] = sighting{now, c.Addr, defended}
		w.k.sighted(h.e, r, fmt.Errorf("address %v of %s is used by %v as well: defending it, and giving it up if that goes on", c.Addr, r.Spec.Identity, by))
	}
}

// own reports a claim that comes from outside with the lease's own MAC: an
// identity that is attached on another host as well. Neither of the two has
// more right to the address, and giving it up would only bring it back: nothing
// but the report is done. What is sent to one host alone says nothing of where it
// comes from: a child's answer to the host's own child is heard as well.
func (w *arpWatch) own(h holder, c dhcpclient.Claim, now time.Duration) {
	if last := w.last(h, c); last.done == reported && now-last.at < dhcpclient.RateLimitInterval {
		return
	}
	r, ok := w.current(h, c.Addr)
	if !ok || !bytes.Equal(r.Spec.MAC, c.MAC[:]) {
		return
	}
	w.seen[h.id] = sighting{now, c.Addr, reported}
	w.k.sighted(h.e, r, fmt.Errorf("address %v of %s is used on another host too, with the same MAC %v: detach %[2]s on one of them", c.Addr, r.Spec.Identity, r.Spec.MAC))
}

// last is what was done last about claims to the lease's address.
func (w *arpWatch) last(h holder, c dhcpclient.Claim) sighting {
	if s := w.seen[h.id]; s.addr == c.Addr {
		return s
	}
	return sighting{}
}

// current returns the holder's record if it still has the address.
func (w *arpWatch) current(h holder, addr netip.Addr) (Record, bool) {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	ok := w.k.leases[h.id] == h.e && h.e.watched() && h.e.rec.Binding.Address.Addr() == addr
	return h.e.rec, ok
}

// job runs f beside the listener if there is room among the conflict checks.
func (w *arpWatch) job(f func()) bool {
	k := w.k
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	select {
	case k.verify <- struct{}{}:
	default:
		return false
	}
	k.wg.Go(func() {
		defer func() { <-k.verify }()
		f()
	})
	return true
}

// defend tells the link once that the address is the lease's.
func (k *Keeper) defend(r Record) {
	arp, err := k.host.ARP(r.NS, r.Child)
	if err == nil {
		err = arp.Announce(r.Binding.Address.Addr())
		arp.Close()
	}
	if err != nil {
		k.log.Warn("address not defended", "lease", r.ID, "error", err)
	}
}

// sighted notes and reports a conflict that leaves the lease as it is.
func (k *Keeper) sighted(e *entry, r Record, err error) {
	k.mu.Lock()
	if k.leases[r.ID] == e {
		e.rec.LastError = oneLine(err)
		r.LastError = e.rec.LastError
	}
	k.mu.Unlock()
	k.event(EvConflict, r, "%v", err)
}

// beside reports whether the MAC is that of another lease's child in the same
// namespace: a host sends and answers ARP for any of its addresses on each of
// its interfaces (arp_announce and arp_ignore in the kernel's
// Documentation/networking/ip-sysctl.rst), unless they are told not to, as those
// that CreateChild makes.
func (k *Keeper) beside(r Record, mac net.HardwareAddr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, e := range k.leases {
		if o := &e.rec; id != r.ID && o.NS.Dev == r.NS.Dev && o.NS.Ino == r.NS.Ino && bytes.Equal(o.Spec.MAC, mac) {
			return true
		}
	}
	return false
}
