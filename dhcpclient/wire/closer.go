// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"sync"
)

// maxClosers bounds the goroutines, and so the threads, that close sockets.
const maxClosers = 4

// closers closes AF_PACKET sockets in the background: close(2) waits there for
// a grace period of the kernel, some 15 ms (packet_release in
// net/packet/af_packet.c). Its goroutines end when there is nothing to close.
var closers struct {
	sync.Mutex
	queue   []func()
	running int
	// idle is open while a socket waits to be closed or is being closed.
	idle chan struct{}
}

// Flush waits until no closed socket is left in the kernel, where it would keep
// its namespace alive, and returns ctx.Err() when ctx ends first.
func Flush(ctx context.Context) error {
	closers.Lock()
	idle := closers.idle
	closers.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeLater runs f in the background.
func closeLater(f func()) {
	closers.Lock()
	defer closers.Unlock()
	closers.queue = append(closers.queue, f)
	if closers.idle == nil {
		closers.idle = make(chan struct{})
	}
	if closers.running < maxClosers {
		closers.running++
		go closeQueued()
	}
}

func closeQueued() {
	closers.Lock()
	defer closers.Unlock()
	for len(closers.queue) > 0 {
		f := closers.queue[0]
		closers.queue[0] = nil
		closers.queue = closers.queue[1:]
		closers.Unlock()
		f()
		closers.Lock()
	}
	if closers.running--; closers.running == 0 {
		closers.queue = nil
		close(closers.idle)
		closers.idle = nil
	}
}
