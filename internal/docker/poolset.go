// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// poolSet remembers, in a file, how often each pool was asked for and not
// released since: a pool without a container leaves no other trace, and its
// parent must stay. It is safe for concurrent use.
type poolSet struct {
	path string // empty: in memory only

	mu    sync.Mutex
	count map[string]int // by pool id
}

// openPools reads the file; a missing one is empty. With an error the set is
// empty and can be used.
func openPools(path string) (*poolSet, error) {
	s := &poolSet{path: path, count: map[string]int{}}
	if path == "" {
		return s, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.count)
	}
	if err != nil || s.count == nil {
		s.count = map[string]int{}
	}
	if err != nil {
		return s, fmt.Errorf("pool file %s: %w", path, err)
	}
	return s, nil
}

// add takes note of one more network with the pool, unless that can't be stored.
func (s *poolSet) add(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(id, s.count[id]+1)
	err := s.save()
	if err != nil {
		s.put(id, s.count[id]-1)
	}
	return err
}

// drop takes one network off the pool and returns how many are left.
func (s *poolSet) drop(id string) (left int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[id] == 0 {
		return 0, nil
	}
	s.put(id, s.count[id]-1)
	return s.count[id], s.save()
}

// set corrects how many networks the pool has, unless it has others than from by
// now.
func (s *poolSet) set(id string, from, to int) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[id] != from {
		return false, nil
	}
	s.put(id, to)
	return true, s.save()
}

// put changes a count. The lock is held.
func (s *poolSet) put(id string, n int) {
	if s.count[id] = n; n == 0 {
		delete(s.count, id)
	}
}

// all is a copy of the counts.
func (s *poolSet) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(map[string]int, len(s.count))
	for id, n := range s.count {
		c[id] = n
	}
	return c
}

// on reports whether a pool is on the parent.
func (s *poolSet) on(parent string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.count {
		if p, err := decodePool(id); err == nil && p.Parent == parent {
			return true
		}
	}
	return false
}

// save writes the file whole. The lock is held.
func (s *poolSet) save() error {
	if s.path == "" {
		return nil
	}
	b, err := json.Marshal(s.count)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), ".pools-")
	if err != nil {
		return fmt.Errorf("pool file %s: %w", s.path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("pool file %s: %w", s.path, err)
	}
	return nil
}
