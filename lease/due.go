// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"container/heap"
	"time"
)

// dueQueue is the heap of due times: at most one place for an entry. It is
// guarded by the keeper's lock.
type dueQueue struct{ h dueHeap }

// set puts e in at the moment, or moves it there.
func (q *dueQueue) set(e *entry, at time.Duration) {
	e.at = at
	if e.pos >= 0 {
		heap.Fix(&q.h, e.pos)
		return
	}
	heap.Push(&q.h, e)
}

// drop takes e out, if it is in.
func (q *dueQueue) drop(e *entry) {
	if e.pos >= 0 {
		heap.Remove(&q.h, e.pos)
	}
}

// next returns the first entry and its moment without taking it out.
func (q *dueQueue) next() (*entry, time.Duration, bool) {
	if len(q.h) == 0 {
		return nil, 0, false
	}
	return q.h[0], q.h[0].at, true
}

type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.pos = len(*h)
	*h = append(*h, e)
}

func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.pos = -1
	return e
}
