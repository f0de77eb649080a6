// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// absent waits until the host has no link of this name.
func absent(t *testing.T, name string) {
	t.Helper()
	changes := make(chan netlink.LinkUpdate)
	done := make(chan struct{})
	defer func() {
		close(done)
		for range changes { // until the subscription has ended
		}
	}()
	err := netlink.LinkSubscribeWithOptions(changes, done, netlink.LinkSubscribeOptions{ListExisting: false})
	if err != nil {
		t.Fatalf("watch links: %v", err)
	}
	late := time.After(patience)
	for {
		if _, there := links(t, "")[name]; !there {
			return
		}
	event:
		for {
			select {
			case u, ok := <-changes:
				if !ok || u.Header.Type == unix.RTM_DELLINK {
					break event
				}
			case <-late:
				t.Fatalf("%s is still there", name)
			}
		}
	}
}
