// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"encoding/binary"
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
)

// write is an entry of the journal, or with number 0 the request to bring the
// database up to date.
type write struct {
	number uint64
	id     string
	data   []byte // empty: delete
	err    chan<- error
}

const (
	// takeAfter is how long the database may lack what the journal has.
	takeAfter = 50 * time.Millisecond
	// takeAgain is the pause after the database could not be written.
	takeAgain = time.Second
	// addTries is how often room is made in the journal for one entry.
	addTries = 100
)

// send adds a write to the journal and the queue. done, when not nil, is told
// when it is synced.
func (s *BoltStore) send(id string, data []byte, done chan<- error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errStoreClosed
	}
	for try := 1; ; try++ {
		err := s.journal.add(id, data, func(number uint64) { s.queue <- write{number, id, data, done} })
		if !errors.Is(err, errJournalFull) || try == addTries {
			return err
		}
		if err := s.take(); err != nil {
			return err
		}
	}
}

// flush brings the database up to date.
func (s *BoltStore) flush() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errStoreClosed
	}
	return s.take()
}

func (s *BoltStore) take() error {
	done := make(chan error, 1)
	s.queue <- write{err: done}
	return <-done
}

// commit syncs the journal for what has queued up, and has the database take it
// over some time later.
func (s *BoltStore) commit() {
	defer close(s.done)
	t := taker{store: s, waiting: map[string][]byte{}}
	for {
		var timer <-chan time.Time
		if t.timer != nil {
			timer = t.timer.C
		}
		select {
		case w, ok := <-s.queue:
			if !ok {
				_ = t.take() // else the journal keeps it
				return
			}
			s.together(&t, s.queued(w))
		case <-timer:
			_ = t.take()
		}
	}
}

// queued is a write with those that wait behind it.
func (s *BoltStore) queued(first write) []write {
	batch := []write{first}
	for len(batch) < 1024 {
		select {
		case w, ok := <-s.queue:
			if !ok {
				return batch
			}
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// together makes a batch last, with one flush of the disk.
func (s *BoltStore) together(t *taker, batch []write) {
	var synced, taken error
	ask, flush := false, false
	for _, w := range batch {
		if w.number == 0 {
			flush = true
			continue
		}
		ask = ask || w.err != nil
		t.add(w)
	}
	if ask {
		synced = s.journal.sync()
	}
	if flush {
		taken = t.take()
	}
	for _, w := range batch {
		switch {
		case w.err == nil:
		case w.number == 0:
			w.err <- taken
		default:
			w.err <- synced
		}
	}
}

// taker is what the database has not taken from the journal yet. It belongs to
// the goroutine of commit.
type taker struct {
	store   *BoltStore
	waiting map[string][]byte // by lease
	number  uint64
	timer   *time.Timer // nil: nothing waits
}

func (t *taker) add(w write) {
	t.waiting[w.id], t.number = w.data, w.number
	if t.timer == nil {
		t.timer = time.NewTimer(takeAfter)
	}
}

// take writes to the database what waits. When that fails it is tried again.
func (t *taker) take() error {
	if t.timer == nil {
		return nil
	}
	t.timer.Stop()
	err := t.store.db.Update(func(tx *bolt.Tx) error {
		for id, data := range t.waiting {
			if err := put(tx, id, data); err != nil {
				return err
			}
		}
		return setTaken(tx, t.number)
	})
	if err != nil {
		t.timer = time.NewTimer(takeAgain)
		return err
	}
	t.timer = nil
	clear(t.waiting)
	t.store.journal.taken.Store(t.number)
	return nil
}

func put(tx *bolt.Tx, id string, data []byte) error {
	if len(data) == 0 {
		return tx.Bucket(bucket).Delete([]byte(id))
	}
	return tx.Bucket(bucket).Put([]byte(id), data)
}

func setTaken(tx *bolt.Tx, number uint64) error {
	return tx.Bucket(ownBucket).Put(keyTaken, binary.BigEndian.AppendUint64(nil, number))
}
