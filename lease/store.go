// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Store holds the records. Its methods are safe for concurrent use.
type Store interface {
	// Put writes the record and returns when it would survive a power cut.
	Put(r Record) error
	// PutLater queues the record ahead of every later Put of the store and
	// returns at once.
	PutLater(r Record)
	// Delete removes the record; a missing one is no error.
	Delete(id string) error
	// All reads every record. Ones that cannot be read are reported in the
	// error and left out.
	All() ([]Record, error)
	// Info is where the store is and how many bytes it takes.
	Info() (path string, size int64)
	Close() error
}

var bucket = []byte("leases")

// BoltStore is a Store in one bbolt file. Writes that wait together are
// committed together.
type BoltStore struct {
	db    *bolt.DB
	path  string
	queue chan write
	done  chan struct{}
	// close guards queue against a write after Close.
	mu     sync.RWMutex
	closed bool
}

type write struct {
	id   string
	data []byte // nil: delete
	err  chan<- error
}

var errStoreClosed = errors.New("the lease store is closed")

// OpenStore opens the file leases.db in dir, which it makes when missing. A file
// that is damaged or something else is set aside under a new name, which is
// returned with the reason; the store is then empty.
func OpenStore(dir string) (s *BoltStore, aside string, reason error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", nil, fmt.Errorf("state directory %s cannot be made: %w; give another with --state-dir", dir, err)
	}
	path := filepath.Join(dir, "leases.db")
	db, err := openBolt(path)
	if err != nil {
		if !damaged(err) {
			return nil, "", nil, fmt.Errorf("state directory %s cannot be used: %w; check its permissions or give another with --state-dir", dir, err)
		}
		reason = err
		aside = fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000000"))
		if err := os.Rename(path, aside); err != nil {
			return nil, "", nil, fmt.Errorf("failed to set the damaged state file aside: %w", err)
		}
		if db, err = openBolt(path); err != nil {
			return nil, "", nil, fmt.Errorf("state file %s cannot be made: %w", path, err)
		}
	}
	s = &BoltStore{db: db, path: path, queue: make(chan write, 256), done: make(chan struct{})}
	go s.commit()
	return s, aside, reason, nil
}

// errDamaged marks what openBolt found wrong inside a file.
var errDamaged = errors.New("damaged")

// openBolt opens and checks the whole file. bbolt maps the file into memory and
// can fault or panic on pages that lie, so every page is checked before use.
func openBolt(path string) (db *bolt.DB, err error) {
	if fi, serr := os.Stat(path); serr == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", errDamaged, path)
	}
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				db.Close()
			}
			db, err = nil, fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		// Check reads in a goroutine of its own, where a fault can't be caught.
		if fi, err := os.Stat(path); err != nil || fi.Size() < tx.Size() {
			return fmt.Errorf("%w: it is shorter than the %d bytes in use", errDamaged, tx.Size())
		}
		for err := range tx.Check() {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// damaged tells a bad file from a file that cannot be reached.
func damaged(err error) bool {
	for _, e := range []error{errDamaged, bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum, bolterrors.ErrIncompatibleValue} {
		if errors.Is(err, e) {
			return true
		}
	}
	// bbolt has no error value for a file cut short.
	return err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, bolterrors.ErrTimeout) && !errors.As(err, new(*os.PathError)) && !errors.As(err, new(*os.SyscallError))
}

// Put writes the record and returns when it would survive a power cut.
func (s *BoltStore) Put(r Record) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	return s.wait(r.ID, b)
}

// PutLater queues the record ahead of every later write.
func (s *BoltStore) PutLater(r Record) {
	if b, err := r.Encode(); err == nil {
		s.send(write{id: r.ID, data: b})
	}
}

// Delete removes the record.
func (s *BoltStore) Delete(id string) error { return s.wait(id, nil) }

// All reads every record.
func (s *BoltStore) All() ([]Record, error) {
	var rs []Record
	var errs []error
	err := s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			r, err := DecodeRecord(v)
			if err == nil && r.ID != string(k) {
				err = fmt.Errorf("lease %s: stored under %q", r.ID, k)
			}
			if err != nil {
				errs = append(errs, err)
				return nil
			}
			rs = append(rs, r)
			return nil
		})
	})
	return rs, errors.Join(append(errs, err)...)
}

// Info is the file's path and size in bytes.
func (s *BoltStore) Info() (string, int64) {
	fi, err := os.Stat(s.path)
	if err != nil {
		return s.path, 0
	}
	return s.path, fi.Size()
}

// Close commits what is queued and closes the file.
func (s *BoltStore) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.mu.Unlock()
	<-s.done
	return s.db.Close()
}

func (s *BoltStore) wait(id string, data []byte) error {
	done := make(chan error, 1)
	if !s.send(write{id: id, data: data, err: done}) {
		return fmt.Errorf("lease %s: failed to store its record: %w", id, errStoreClosed)
	}
	if err := <-done; err != nil {
		return fmt.Errorf("lease %s: failed to store its record: %w", id, err)
	}
	return nil
}

func (s *BoltStore) send(w write) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	s.queue <- w
	return true
}

// commit writes what has queued up in one transaction at a time, in order.
func (s *BoltStore) commit() {
	defer close(s.done)
	for w := range s.queue {
		batch := []write{w}
	drain:
		for len(batch) < 1024 {
			select {
			case w, ok := <-s.queue:
				if !ok {
					break drain
				}
				batch = append(batch, w)
			default:
				break drain
			}
		}
		err := s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucket)
			for _, w := range batch {
				var err error
				if w.data == nil {
					err = b.Delete([]byte(w.id))
				} else {
					err = b.Put([]byte(w.id), w.data)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range batch {
			if w.err != nil {
				w.err <- err
			}
		}
	}
}
