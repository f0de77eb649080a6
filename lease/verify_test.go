// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mvdhcp/dhcpclient"
)

// Who waits for a lease in vain reads its record as it is.
func TestOwnBusy(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		e, release, err := r.k.seize(r.Context(), rec.ID)
		if err != nil {
			r.Fatal(err)
		}
		defer release()
		ended, cancel := context.WithCancel(r.Context())
		cancel()
		var wg sync.WaitGroup
		for range 100 { // one of them reads while the record changes
			wg.Go(func() {
				if _, _, err := r.k.own(ended, e, false); !errors.Is(err, context.Canceled) {
					r.Error(err)
				}
			})
			wg.Go(func() { r.k.update(e, func(r *Record) { *r = rec }) })
		}
		wg.Wait()
	})
}

// Another host that probes for an address in use is no conflict, one that has it
// is, also while the check goes on in the background.
func TestARPWhileVerifying(t *testing.T) {
	for name, tc := range map[string]struct {
		probe bool
		want  []EventKind
	}{
		"probe": {true, []EventKind{EvBound}},
		"claim": {false, []EventKind{EvBound, EvConflict, EvBound}},
	} {
		t.Run(name, func(t *testing.T) {
			sim(t, func(r *rig) {
				rec := r.attach("web")
				addr := rec.Binding.Address.Addr()
				time.Sleep(time.Second)
				synctest.Wait()
				p := dhcpclient.ARPPacket{Request: true, SenderMAC: net.HardwareAddr{2, 9, 9, 9, 9, 9}, SenderIP: addr, TargetIP: addr}
				if tc.probe {
					p.SenderIP = netip.IPv4Unspecified()
				}
				r.w.mu.Lock()
				if len(r.w.arps) != 1 {
					r.Errorf("%d ARP sockets", len(r.w.arps))
				}
				for a := range r.w.arps {
					a.in <- p
				}
				r.w.mu.Unlock()
				r.settle()
				r.want(tc.want...)
				if got := r.onKid("web/eth0"); (got == rec.Binding.Address.String()) != tc.probe {
					r.Errorf("on the child: %q", got)
				}
			})
		})
	}
}
