// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"runtime"
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
		before := runtime.NumGoroutine()
		for i := range leases {
			r.attach(name(i))
		}
		// Outages that end after every lease expired, after T2, after T1, and before.
		outages := []time.Duration{13 * time.Hour, 11 * time.Hour, 8 * time.Hour, time.Hour}
		up, n := r.w.clock.Now(), 0
		var downAt, backAt time.Duration
		for start := r.w.clock.Now(); r.w.clock.Now()-start < year; {
			time.Sleep(step)
			now := r.w.clock.Now()
			if r.w.srv.up {
				if since := now - backAt; backAt > 0 && since >= 10*time.Minute && int(now/step)%4 == 0 {
					r.allBound(now, backAt, downAt)
				}
			}
			r.server(func(s *server) {
				switch {
				case s.up && now-up > 40*24*time.Hour:
					s.up, downAt, up = false, now, now
				case !s.up && now-downAt >= outages[n%len(outages)]:
					s.up, backAt, n = true, now, n+1
				case s.up && n%2 == 0: // an operator takes a lease back
					s.drop(r.k.Leases(name(int(now/step)%leases), false)[0].Spec.MAC.String())
				}
			})
			if int(now/step)%11 == 0 {
				p.reset() // the next look at each lease comes out of turn
				r.k.Observe(provision.Event{Kind: provision.Resync})
			}
			r.got()
		}
		r.server(func(s *server) { s.up = true })
		time.Sleep(13 * time.Hour)
		r.w.mu.Lock()
		r.w.loss = 0
		r.w.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for range 600 { // what is under way comes to its end
			if runtime.NumGoroutine() <= before {
				break
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if got := runtime.NumGoroutine() - before; got > 0 {
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

// allBound checks, some time after the server came back, that no lease is
// without an address and none shares one.
func (r *rig) allBound(now, back, down time.Duration) {
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
	missing := 0
	for _, v := range r.k.Leases("", false) {
		b := v.Binding
		if b == nil || holder[b.Address.Addr()] != v.Spec.Identity+"/eth0" {
			missing++
			continue
		}
		if now-back > 12*time.Hour && v.BoundAt.Boot <= down {
			r.Errorf("%v: %s was last granted at %v, the server is back since %v", now, v.Spec.Identity, v.BoundAt.Boot, back)
		}
	}
	// A lease taken back in this hour may be on its way to another.
	if missing > 1 {
		r.Errorf("%v: %d leases without an address, the server is back since %v", now, missing, back)
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
