// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/provision"
)

// A year of a hundred leases of twelve hours, on a LAN that loses one message in
// ten and repeats others, with a server that is away for hours, refuses leases
// and is told of by a nervous kernel. The world checks at every Apply that no
// two children have one address and that none is held longer than granted.
func TestSimYear(t *testing.T) {
	const leases, year, step = yearLeases, yearDays * 24 * time.Hour, time.Hour
	sim(t, func(r *rig) {
		r.w.loss, r.w.dup = 0.1, 0.05
		p := pacing{T: r.T, w: r.w, last: map[string]sent{}, discovers: map[string]int{}}
		r.w.watch = p.see
		before := goroutines()
		for i := range leases {
			o := r.options(name(i), r.w.addSpace(name(i)))
			// Where a fifth of the exchanges is lost, one attach in some
			// thousands hears nothing for 30 s.
			o.Timeout = time.Hour
			if _, err := r.attachTo(o); err != nil {
				r.Fatalf("attach %s: %v", name(i), err)
			}
		}
		lost := losses{}
		// Outages that end after every lease expired, once one is rebinding, after
		// T2, after T1, and before.
		outages := []time.Duration{13 * time.Hour, untilRebinding, 11 * time.Hour, 8 * time.Hour, time.Hour}
		up, n := r.w.clock.Now(), 0
		var downAt, backAt time.Duration
		for start := r.w.clock.Now(); r.w.clock.Now()-start < year; {
			time.Sleep(step)
			now := r.w.clock.Now()
			lost.follow(r.got())
			if r.w.srv.up {
				if since := now - backAt; backAt > 0 && since >= 10*time.Minute && int(now/step)%4 == 0 {
					r.allBound(now, backAt, downAt, lost)
				}
			}
			views := r.k.Leases("", false)
			r.server(func(s *server) {
				over := now-downAt >= outages[n%len(outages)]
				if outages[n%len(outages)] == untilRebinding {
					over = slices.ContainsFunc(views, func(v View) bool {
						return v.State == Rebinding && s.grants[v.Spec.MAC.String()] != nil
					})
				}
				switch {
				case s.up && now-up > 40*24*time.Hour:
					s.up, downAt, up = false, now, now
				case !s.up && over:
					s.up, backAt, n = true, now, n+1
				case s.up && n%2 == 0: // an operator takes a lease back
					s.drop(r.k.Leases(name(int(now/step)%leases), false)[0].Spec.MAC.String())
				}
			})
			if int(now/step)%11 == 0 {
				p.reset() // the next look at each lease comes out of turn
				r.k.Observe(provision.Event{Kind: provision.Resync})
			}
		}
		r.server(func(s *server) { s.up = true })
		time.Sleep(13 * time.Hour)
		r.w.mu.Lock()
		r.w.loss = 0
		r.w.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for range 600 { // what is under way comes to its end
			if goroutines() <= before {
				break
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if got := goroutines() - before; got > 0 {
			r.Errorf("%d goroutines more than before %d leases", got, leases)
		}
		counts := r.k.EventCounts()
		for _, k := range []EventKind{EvBound, EvRenewed, EvRebound, EvNAK, EvExpired} {
			if counts[k] == 0 {
				r.Errorf("a year without one %s", k)
			}
		}
		r.Logf("events %v, %d applied, %d messages", counts, r.w.applied, p.n)
	})
}

// untilRebinding is an outage in which every renewal fails and that a lease
// outlives: at the hourly look a half of the time from T2 to expiry is left.
const untilRebinding = time.Duration(-1)

// losses is when each identity lost the address it is without now.
type losses map[string]time.Time

func (l losses) follow(evs []Event) {
	for _, e := range evs {
		who := e.Record.Spec.Identity
		_, without := l[who]
		switch e.Kind {
		case EvBound:
			delete(l, who)
		case EvNAK, EvExpired, EvConflict:
			if !without {
				l[who] = e.Time
			}
		}
	}
}

// regain is the time in which a lease that the server took back has another
// address, on a LAN that loses messages: some tries, and some addresses that are
// offered while the lease they were taken from is still in use.
const regain = 10 * time.Minute

// allBound checks, some time after the server came back, that no lease is
// without an address for longer than regain and none shares one.
func (r *rig) allBound(now, back, down time.Duration, lost losses) {
	r.Helper()
	holder := map[netip.Addr]string{}
	for name, k := range r.w.kids() {
		if p := k.has(now); p.IsValid() {
			if o := holder[p.Addr()]; o != "" {
				r.Errorf("%v: %s and %s have %v", now, o, name, p)
			}
			holder[p.Addr()] = name
		}
	}
	for _, v := range r.k.Leases("", false) {
		b := v.Binding
		if b == nil || holder[b.Address.Addr()] != v.Spec.Identity+"/eth0" {
			since, ok := lost[v.Spec.Identity]
			if ago := r.w.clock.Wall().Sub(since); !ok || ago > regain {
				r.Errorf("%v: %s (%s: %s) is without an address since %v, the server is back since %v", now, v.Spec.Identity, v.State, v.LastError, ago, back)
			}
			continue
		}
		if now-back > 12*time.Hour && v.BoundAt.Boot <= down {
			r.Errorf("%v: %s was last granted at %v, the server is back since %v", now, v.Spec.Identity, v.BoundAt.Boot, back)
		}
	}
}

// pacing holds a client to RFC 2131, 4.4.5: between two REQUESTs of one kind a
// minute at least; and to a bounded rate of DISCOVER.
type pacing struct {
	*testing.T
	w         *world
	last      map[string]sent
	discovers map[string]int
	hour      time.Duration
	n         int
}

func (p *pacing) reset() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	clear(p.last)
}

func (p *pacing) see(s sent) {
	p.n++
	if h := s.at.Truncate(time.Hour); h != p.hour {
		p.hour = h
		clear(p.discovers)
	}
	switch {
	case s.kind == dhcpv4.MessageTypeDiscover:
		if p.discovers[s.mac]++; p.discovers[s.mac] > 300 {
			p.Errorf("%v: %s sent its %dth DISCOVER of the hour", s.at, s.mac, p.discovers[s.mac])
		}
	case s.kind == dhcpv4.MessageTypeRequest && s.ciaddr.IsValid():
		key := s.mac + s.to.String()
		if o, ok := p.last[key]; ok && s.at-o.at < time.Minute {
			p.Errorf("%v: %s asks again %v after the last time (%v)", s.at, s.mac, s.at-o.at, s)
		}
		p.last[key] = s
	}
}
