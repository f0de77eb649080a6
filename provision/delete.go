// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"time"
)

// deletesAhead is how many deletions the kernel may still be at while callers go
// on; each has a thread. More wait for the kernel's answer.
const deletesAhead = 16

// deletePoll is how long the kernel is given between two looks at a link that is
// being deleted.
const deletePoll = 200 * time.Microsecond

// deleteAhead deletes a link in ns and returns once it is out of the namespace
// and its MAC is free. By then the kernel has let go of its lock, but answers
// only after a grace period (netdev_run_todo in net/core/dev.c): some 20 ms that
// pass beside the caller's work.
func (k *Kernel) deleteAhead(ns *NS, c *conn, index int) error {
	d, err := ns.dial()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	run := func() error {
		defer d.close()
		done <- d.deleteLink(own, index)
		return nil
	}
	if !k.deleting.TryGo(run) {
		_ = run()
	}
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(deletePoll):
		}
		// Waits for the lock while the link is being taken out.
		if _, err := c.linkByIndex(own, index); errors.Is(err, errNoLink) {
			return nil
		}
	}
}
