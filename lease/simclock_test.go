// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"mvdhcp/dhcpclient"
)

// simClock is the time since the host's boot, on the clock of the test.
type simClock struct {
	boot time.Time
	id   string
}

func newSimClock() *simClock { return &simClock{boot: time.Now().Add(-time.Hour), id: "boot"} }

func (c *simClock) Now() time.Duration { return time.Since(c.boot) }
func (c *simClock) Wall() time.Time    { return time.Now() }
func (c *simClock) BootID() string     { return c.id }

func (c *simClock) NewAlarm() (Alarm, error) {
	a := &simAlarm{clock: c, c: make(chan struct{}, 1)}
	a.t = time.AfterFunc(1<<62, a.ring)
	return a, nil
}

type simAlarm struct {
	clock *simClock
	t     *time.Timer
	c     chan struct{}
}

func (a *simAlarm) ring() {
	select {
	case a.c <- struct{}{}:
	default:
	}
}

func (a *simAlarm) Set(at time.Duration) error {
	a.t.Reset(max(at-a.clock.Now(), 0))
	return nil
}
func (a *simAlarm) C() <-chan struct{} { return a.c }
func (a *simAlarm) Close() error       { a.t.Stop(); return nil }

// memStore is a Store in memory that remembers the order of what was written.
type memStore struct {
	mu     sync.Mutex
	data   map[string][]byte
	wrote  []string // states
	putErr error
	onPut  func(Record) // called before a record is there
}

func newMemStore() *memStore { return &memStore{data: map[string][]byte{}} }

func (s *memStore) Put(r Record) error {
	if s.onPut != nil {
		s.onPut(r)
	}
	b, err := r.Encode()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = errors.Join(err, s.putErr); err != nil {
		return err
	}
	s.data[r.ID] = b
	if len(s.wrote) < 1000 {
		s.wrote = append(s.wrote, string(r.State))
	}
	return nil
}

func (s *memStore) PutLater(r Record) { s.Put(r) }

func (s *memStore) Note(r Record) func() error {
	err := s.Put(r)
	return func() error { return err }
}

func (s *memStore) Delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, id)
	return nil
}

func (s *memStore) All() (rs []Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.data)) {
		r, derr := DecodeRecord(s.data[id])
		if derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		rs = append(rs, r)
	}
	return rs, err
}

func (s *memStore) Info() (string, int64) { return "memory", int64(len(s.data)) }
func (s *memStore) Close() error          { return nil }

var _ dhcpclient.Conn = (*simConn)(nil)
