// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenErrors(t *testing.T) {
	if err := Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := sockets(t)
	if c, err := ListenPacket(1, PacketOptions{MAC: macA[:5]}); err == nil {
		t.Errorf("ListenPacket with a short MAC: %v", c)
	}
	if c, err := ListenARP(1, nil); err == nil {
		t.Errorf("ListenARP without MAC: %v", c)
	}
	if c, err := ListenUDP("lo", netip.IPv6Loopback()); err == nil {
		t.Errorf("ListenUDP from an IPv6 address: %v", c)
	}
	if c, err := ListenUDP("nonesuch", hostA); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ListenUDP on no link: %v, %v", c, err)
	}
	const nonesuch = 1 << 30
	if c, err := ListenPacket(nonesuch, PacketOptions{MAC: macA}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ListenPacket on no link: %v, %v", c, err)
	}
	if c, err := ListenARP(nonesuch, macA); !errors.Is(err, unix.ENODEV) {
		t.Errorf("ListenARP on no link: %v, %v", c, err)
	}
	if err := Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are left", after-before)
	}
}

// sockets is the number of sockets that the process has open.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func TestFlush(t *testing.T) {
	l := newLAN(t)
	c := l.child("02:00:00:00:00:11")
	if err := Flush(l.ctx()); err != nil {
		t.Fatal(err)
	}
	before := sockets(t)
	for range 30 {
		c.packet(PacketOptions{}).Close()
		c.arp().Close()
	}
	if err := Flush(l.ctx()); err != nil {
		t.Fatal(err)
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are left", after-before)
	}
}

func TestClosersAreBounded(t *testing.T) {
	var running, most atomic.Int32
	hold := make(chan struct{})
	for range 50 {
		closeLater(func() {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-hold
			running.Add(-1)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush with closers under way: %v", err)
	}
	close(hold)
	if err := Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if n := most.Load(); n == 0 || n > maxClosers {
		t.Errorf("%d closers at once", n)
	}
	closers.Lock()
	defer closers.Unlock()
	if closers.running != 0 || closers.queue != nil {
		t.Errorf("%d closers and %d sockets are left", closers.running, len(closers.queue))
	}
}
