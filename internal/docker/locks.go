// SPDX-License-Identifier: Apache-2.0

package docker

import "sync"

// locks is one lock for every key. A key that nobody holds or waits for takes no
// memory. The zero value is ready, and safe for concurrent use.
type locks struct {
	mu   sync.Mutex
	keys map[string]*keyLock
}

// keyLock is the lock of one key and how many hold it or wait for it.
type keyLock struct {
	mu    sync.Mutex
	users int
}

// lock waits until nobody else holds the key. The function it returns lets the
// next one go.
func (l *locks) lock(key string) (unlock func()) {
	l.mu.Lock()
	k := l.keys[key]
	if k == nil {
		k = &keyLock{}
		if l.keys == nil {
			l.keys = map[string]*keyLock{}
		}
		l.keys[key] = k
	}
	k.users++
	l.mu.Unlock()
	k.mu.Lock()
	return func() {
		k.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.keys, key)
		}
	}
}
