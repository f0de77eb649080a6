// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"net/netip"
	"testing"

	"mvdhcp/lease"
)

func TestSucceeds(t *testing.T) {
	for _, tc := range []struct {
		old, mac string
		want     bool
	}{
		{"02:42:0a:00:00:01", "02:42:fe:dc:ba:98", true}, // engine 20
		{"3a:e9:2a:6e:97:e9", "96:3f:f2:62:82:fc", true}, // engine 28
		{"3a:e9:2a:6e:97:e9", "02:42:fe:dc:ba:98", true}, // engine 28, once in 16,384 times
		{"02:42:0a:00:00:01", "02:00:5e:00:00:01", false},
		{"02:42:0a:00:00:01", "3a:e9:2a:6e:97:e9", false},
		{"3a:e9:2a:6e:97:e9", "00:50:56:00:00:01", false}, // a vendor's
		{"00:50:56:00:00:01", "3a:e9:2a:6e:97:e9", false},
	} {
		if got := succeeds(mac(t, tc.old), mac(t, tc.mac)); got != tc.want {
			t.Errorf("%s after %s: %v", tc.mac, tc.old, got)
		}
	}
}

// TestOneMACOnTwoParents: the interfaces of two leases with one MAC, on two
// parents, are both looked for.
func TestOneMACOnTwoParents(t *testing.T) {
	m := mac(t, "02:00:5e:00:00:01")
	reserved := func(id, parent string) lease.Record {
		return lease.Record{
			ID: id, State: lease.Kept, Spec: lease.Spec{Parent: parent, MAC: m, Identity: "docker:" + id}, Binding: granted("10.0.0.5/16"),
			Pool: &lease.Pool{ID: "p" + id, Answered: netip.MustParseAddr("10.0.0.5")},
		}
	}
	p := newDeafPlugin(t, reserved("l1", "up0"), reserved("l2", "up1"))
	p.open()
	p.mover.await("l1", m)
	p.mover.await("l2", m)
	if gs := p.mover.waitFor(m); len(gs) != 2 || !p.mover.pending() {
		t.Errorf("looks for %v", gs)
	}
	p.mover.drop("l1")
	if gs := p.mover.waitFor(m); len(gs) != 1 || gs[0].id != "l2" {
		t.Errorf("looks for %v after one was dropped", gs)
	}
}
