// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// networks is the bucket of the engine's networks: their options by id.
var networks = []byte("networks")

// PutNetwork stores what is known of a network, and returns when it would
// survive a power cut.
func (s *BoltStore) PutNetwork(id string, data []byte) error {
	return s.network(id, func(b *bolt.Bucket) error { return b.Put([]byte(id), data) })
}

// DeleteNetwork removes a network; a missing one is no error.
func (s *BoltStore) DeleteNetwork(id string) error {
	return s.network(id, func(b *bolt.Bucket) error { return b.Delete([]byte(id)) })
}

// Networks reads all that was stored, by id.
func (s *BoltStore) Networks() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(networks)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all[string(k)] = append([]byte(nil), v...)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("failed to read the stored networks: %w", err)
	}
	return all, nil
}

func (s *BoltStore) network(id string, change func(*bolt.Bucket) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return fmt.Errorf("network %.12s: %w", id, errStoreClosed)
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(networks)
		if err != nil {
			return err
		}
		return change(b)
	})
	if err != nil {
		return fmt.Errorf("network %.12s: failed to store it: %w", id, err)
	}
	return nil
}
