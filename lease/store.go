// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Store holds the records. Its methods are safe for concurrent use.
type Store interface {
	// Put writes the record and returns when it would survive a power cut.
	Put(r Record) error
	// PutLater queues the record ahead of every later Put of the store and
	// returns at once. The end of this process does not undo it.
	PutLater(r Record)
	// Note is PutLater with a function that waits until the record would survive
	// a power cut as well.
	Note(r Record) (wait func() error)
	// Delete removes the record; a missing one is no error.
	Delete(id string) error
	// All reads every record. Ones that cannot be read are reported in the
	// error and left out.
	All() ([]Record, error)
	// Info is where the store is and how many bytes it takes.
	Info() (path string, size int64)
	Close() error
}

// The bucket of the leases, and the database's own with its name and the number
// of the last journal entry that it has.
var (
	bucket    = []byte("leases")
	ownBucket = []byte("store")
	keyName   = []byte("name")
	keyTaken  = []byte("taken")
)

// BoltStore is a Store in one bbolt file and a journal of what goes there.
// Writes that wait together are synced together; the database takes them over
// soon afterwards.
type BoltStore struct {
	db      *bolt.DB
	journal *journal
	path    string
	queue   chan write
	done    chan struct{}
	// close guards queue against a write after Close.
	mu     sync.RWMutex
	closed bool
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
			return nil, "", nil, unusable(dir, err)
		}
		reason = err
		aside = asideName(path)
		if err := os.Rename(path, aside); err != nil {
			return nil, "", nil, fmt.Errorf("failed to set the damaged state file aside: %w", err)
		}
		if db, err = openBolt(path); err != nil {
			return nil, "", nil, fmt.Errorf("state file %s cannot be made: %w", path, err)
		}
	}
	j, err := recoverJournal(filepath.Join(dir, "leases.journal"), db)
	if err != nil {
		db.Close()
		return nil, "", nil, unusable(dir, err)
	}
	s = &BoltStore{db: db, journal: j, path: path, queue: make(chan write, 256), done: make(chan struct{})}
	go s.commit()
	return s, aside, reason, nil
}

// unusable says why a state directory is no use now, and what to do.
func unusable(dir string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("state directory %s is in use by another process, a keeper on another socket perhaps: stop that one or give another with --state-dir", dir)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("state directory %s is full: %w; free some space there, or give another with --state-dir", dir, err)
	}
	return fmt.Errorf("state directory %s cannot be used: %w; check its permissions or give another with --state-dir", dir, err)
}

// recoverJournal opens the journal and has the database take over what it lacks.
// A file in its place that is none is set aside.
func recoverJournal(path string, db *bolt.DB) (j *journal, err error) {
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		if err := os.Rename(path, asideName(path)); err != nil {
			return nil, err
		}
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(ownBucket)
		if err != nil {
			return err
		}
		name := string(b.Get(keyName))
		if name == "" {
			name = rand.Text()
			if err := b.Put(keyName, []byte(name)); err != nil {
				return err
			}
		}
		var taken uint64
		if n := b.Get(keyTaken); len(n) == 8 {
			taken = binary.BigEndian.Uint64(n)
		}
		j, err = openJournal(path, name, taken, func(id string, data []byte) error { return put(tx, id, data) })
		if err != nil {
			return err
		}
		return setTaken(tx, j.last)
	})
	if err != nil && j != nil {
		j.close()
	}
	return j, err
}

func asideName(path string) string {
	return fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000000"))
}

// errDamaged marks what openBolt found wrong inside a file.
var errDamaged = errors.New("damaged")

// openBolt opens a file whose every page has been checked. It makes one where
// there is none.
func openBolt(path string) (db *bolt.DB, err error) {
	if fi, serr := os.Stat(path); serr == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", errDamaged, path)
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			if db != nil {
				db.Close()
			}
			db, err = nil, fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	there := false
	err = db.View(func(tx *bolt.Tx) error {
		there = tx.Bucket(bucket) != nil
		return nil
	})
	if err == nil && !there {
		err = db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(bucket)
			return err
		})
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// lockWait is how long another keeper may take to let go of the file.
const lockWait = time.Second

// checkFile checks the pages of a file while nobody writes to it. A missing or
// empty one is fine.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close() // and so unlocks it
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockWait / 20) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // as bbolt does
		switch {
		case err == nil:
			fi, err := f.Stat()
			if err != nil || fi.Size() == 0 {
				return err
			}
			return checkPages(f, fi.Size())
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("flock", err)
		case time.Now().After(deadline):
			return bolterrors.ErrTimeout
		}
	}
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
func (s *BoltStore) Put(r Record) error { return s.Note(r)() }

// PutLater queues the record ahead of every later write.
func (s *BoltStore) PutLater(r Record) {
	if b, err := r.Encode(); err == nil {
		_ = s.send(r.ID, b, nil)
	}
}

// Note queues the record, and its result waits for it.
func (s *BoltStore) Note(r Record) func() error {
	done := make(chan error, 1)
	b, err := r.Encode()
	if err == nil {
		err = s.send(r.ID, b, done)
	}
	if err != nil {
		done <- err
	}
	return sync.OnceValue(func() error { return notStored(r.ID, <-done) })
}

// Delete removes the record.
func (s *BoltStore) Delete(id string) error {
	done := make(chan error, 1)
	if err := s.send(id, nil, done); err != nil {
		return notStored(id, err)
	}
	return notStored(id, <-done)
}

func notStored(id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lease %s: failed to store its record: %w", id, err)
}

// All reads every record.
func (s *BoltStore) All() ([]Record, error) {
	var rs []Record
	var errs []error
	if err := s.flush(); err != nil {
		return nil, err
	}
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

// Close commits what is queued and closes the files.
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
	return errors.Join(s.db.Close(), s.journal.close())
}
