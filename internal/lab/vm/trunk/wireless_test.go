// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWireless: a wireless card, and a VLAN on one, is refused as a parent in one
// line. The kernel has no cfg80211, so the link's sysfs is what that makes of it.
func TestWireless(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	ip(t, "link add wlan0 type dummy")
	t.Cleanup(func() { ip(t, "link del wlan0") })
	const dir = "/sys/devices/virtual/net/wlan0"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	if err := os.Symlink("../../ieee80211/phy0", dir+"/phy80211"); err != nil {
		t.Fatal(err)
	}
	before := names(t)
	for _, parent := range []string{"wlan0", "wlan0.100"} {
		for _, args := range [][]string{{"attach", "netns:a"}, {"probe"}} {
			got := k.do(append(args, "--parent", parent)...)
			if got.status != 1 || strings.Contains(got.stderr, "\n") || !strings.Contains(got.stderr, "wlan0: is wireless") {
				t.Errorf("%s on %s: status %d, %q; want 1 and one line that says it is wireless", args[0], parent, got.status, got.stderr)
			}
		}
	}
	bare(t, "a")
	if after := names(t); !slices.Equal(before, after) {
		t.Errorf("the host had the links %v, and has %v", before, after)
	}
	if slices.Contains(links(t, "")["wlan0"].Flags, "UP") {
		t.Error("wlan0 was brought up")
	}
	if list := k.leases(); len(list) != 0 {
		t.Errorf("left are the leases %+v", list)
	}
}
