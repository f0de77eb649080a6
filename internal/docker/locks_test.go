// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"sync"
	"testing"
)

func TestLocksExcludeByKey(t *testing.T) {
	var l locks
	held := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for i := range 100 {
		key := string("ab"[i%2])
		wg.Go(func() {
			defer l.lock(key)()
			*held[key]++ // a race without the lock
		})
	}
	wg.Wait()
	for key, n := range held {
		if *n != 50 {
			t.Errorf("%s: %d went through, want 50", key, *n)
		}
	}
	// One key does not wait for another.
	unlock := l.lock("a")
	l.lock("b")()
	unlock()
}

func TestLocksForgetFreeKeys(t *testing.T) {
	var l locks
	for i := range 1000 {
		l.lock(fmt.Sprint(i))()
	}
	if len(l.keys) != 0 {
		t.Errorf("%d keys remembered, want none", len(l.keys))
	}
}
