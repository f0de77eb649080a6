// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

// The queue always gives the earliest of what is in, each entry once.
func TestDueQueue(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var q dueQueue
	all := make([]*entry, 100)
	for i := range all {
		all[i] = &entry{pos: -1}
	}
	in := map[*entry]time.Duration{}
	for range 5000 {
		e := all[rng.IntN(len(all))]
		switch rng.IntN(3) {
		case 0:
			q.drop(e)
			delete(in, e)
		default:
			at := time.Duration(rng.IntN(1000))
			q.set(e, at)
			in[e] = at
		}
		got, at, ok := q.next()
		if ok != (len(in) > 0) || len(q.h) != len(in) {
			t.Fatalf("%d in the queue, next %v; want %d", len(q.h), ok, len(in))
		}
		if !ok {
			continue
		}
		first := never
		for _, d := range in {
			first = min(first, d)
		}
		if at != first || in[got] != at {
			t.Fatalf("next at %v, want %v", at, first)
		}
	}
	var order []time.Duration
	for {
		e, at, ok := q.next()
		if !ok {
			break
		}
		order = append(order, at)
		q.drop(e)
		if e.pos != -1 {
			t.Fatalf("dropped entry has place %d", e.pos)
		}
		q.drop(e) // again: nothing
	}
	if !slices.IsSorted(order) || len(order) != len(in) {
		t.Errorf("%d came out of %d, sorted %v", len(order), len(in), slices.IsSorted(order))
	}
}

func TestRetry(t *testing.T) {
	const h, m, s = time.Hour, time.Minute, time.Second
	for _, tc := range []struct{ remains, lease, want time.Duration }{
		{4*h + 30*m, 12 * h, 2*h + 15*m}, // half of what remains (RFC 2131, 4.4.5)
		{2 * m, 12 * h, m},
		{90 * s, 12 * h, m}, // at least a minute
		{m, 12 * h, m},
		{10 * s, 12 * h, 10 * s}, // but not beyond the end
		{0, 12 * h, 0},
		{-h, 12 * h, 0},
		{20 * s, 60 * s, 10 * s}, // a short lease: a twentieth of it
		{4 * s, 60 * s, 3 * s},
		{2 * s, 60 * s, 2 * s},
		{4 * s, 8 * s, 2 * s},
		{s + s/2, 8 * s, s}, // and never less than a second
		{h, 20 * m, 30 * m},
	} {
		if got := retry(tc.remains, tc.lease); got != tc.want {
			t.Errorf("%v of %v remain: next try in %v, want %v", tc.remains, tc.lease, got, tc.want)
		}
	}
	// A lease of any length is asked for a bounded number of times.
	for _, lease := range []time.Duration{4 * s, 10 * s, m, 10 * m, h, 12 * h, 24 * 365 * h} {
		n := 0
		for left := lease / 2; left > 0; n++ {
			left -= retry(left, lease)
		}
		if n > 40 {
			t.Errorf("lease of %v: %d tries in half of it", lease, n)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n := range 100 {
		full := min(time.Second<<min(n, 10), maxBackoff)
		low, high := never, time.Duration(0)
		for range 50 {
			d := backoff(n)
			low, high = min(low, d), max(high, d)
		}
		if low < full*3/4 || high > full || low == high {
			t.Errorf("try %d: between %v and %v, want a spread from %v to %v", n, low, high, full*3/4, full)
		}
	}
	if d := backoff(1 << 30); d > maxBackoff || d <= 0 {
		t.Errorf("after very many tries: %v", d)
	}
}

// A lease at rest costs little memory and no goroutine.
func TestIdleLeaseSize(t *testing.T) {
	const n = 10_000
	s := newMemStore()
	for i := range n {
		r := sample(i)
		r.BootID, r.BoundAt.BootID, r.BoundAt.Boot = "boot", "boot", 0
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld()
	w.addParent("ens192.100")
	heap := func() (b uint64) {
		var ms runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&ms)
		return ms.HeapAlloc
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	k, err := New(Config{Host: w, Store: s, Clock: w.clock, MachineID: "m", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	per := (int64(heap()) - int64(before)) / n
	t.Logf("%d bytes a lease", per)
	if per > 2048 {
		t.Errorf("%d bytes a lease, want at most 2048", per)
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines more", got-goroutines)
	}
	if got := len(k.Leases("", false)); got != n {
		t.Errorf("%d leases", got)
	}
	runtime.KeepAlive(s)
}
