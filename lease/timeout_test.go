// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
)

// An attach that gets no lease gives up within its timeout plus one second,
// whatever the server does, and leaves nothing.
func TestAttachGivesUpInTime(t *testing.T) {
	only := func(kinds ...dhcpv4.MessageType) func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		return func(_, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			for _, k := range kinds {
				if reply.MessageType() == k {
					return []*dhcpv4.DHCPv4{reply}
				}
			}
			return nil
		}
	}
	for name, tc := range map[string]struct {
		change func(w *world)
		// silent: the error is that nobody answered.
		silent bool
	}{
		"no server":       {func(w *world) { w.srv.up = false }, true},
		"no carrier ever": {func(w *world) { w.loss = 1 }, true},
		"offers alone":    {func(w *world) { w.srv.lie = only(dhcpv4.MessageTypeOffer) }, true},
		"NAKs alone": {func(w *world) {
			w.srv.lie = func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				if reply.MessageType() == dhcpv4.MessageTypeOffer {
					return []*dhcpv4.DHCPv4{reply}
				}
				return []*dhcpv4.DHCPv4{w.srv.reply(req, dhcpv4.MessageTypeNak, netip.Addr{})}
			}
		}, false},
		"an empty pool": {func(w *world) { w.srv.size = 0 }, true},
		"a pool of conflicts": {func(w *world) {
			for i, a := 0, w.srv.first; i < w.srv.size; i, a = i+1, a.Next() {
				w.hostHas[a], w.holders[a] = "eth9", net.HardwareAddr{2, 0xcc, 0, 0, 0, 1}
			}
		}, false},
		"another's answers": {func(w *world) {
			w.srv.lie = func(_, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
				reply.TransactionID[0]++
				return []*dhcpv4.DHCPv4{reply, reply, reply}
			}
		}, true},
	} {
		for _, check := range []dhcpclient.ConflictCheck{dhcpclient.ConflictFast, dhcpclient.ConflictWait, dhcpclient.ConflictAsync} {
			for _, timeout := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second} {
				t.Run(fmt.Sprintf("%s, %s, %v", name, check, timeout), func(t *testing.T) {
					sim(t, func(r *rig) {
						r.w.mu.Lock()
						tc.change(r.w)
						r.w.mu.Unlock()
						o := r.options("web", r.w.addSpace("web"))
						o.Timeout, o.Spec.Conflict = timeout, check
						start := r.w.clock.Now()
						_, err := r.attachTo(o)
						if took := r.w.clock.Now() - start; err == nil || took > timeout+time.Second {
							t.Errorf("after %v: %v", took, err)
						}
						if tc.silent && !errors.Is(err, dhcpclient.ErrNoAnswer) {
							t.Errorf("error %v", err)
						}
						r.settle()
						if kids := r.w.kids(); len(kids) != 0 || len(r.store.data) != 0 || len(r.k.Leases("", true)) != 0 {
							t.Errorf("left behind: %v, %d records", kids, len(r.store.data))
						}
						r.server(func(s *server) {
							for mac, g := range s.grants {
								if now := r.w.clock.Now(); g.until > now+time.Minute {
									t.Errorf("left at the server: %s has %v for %v", mac, g.addr, g.until-now)
								}
							}
						})
					})
				})
			}
		}
	}
}

// A target that goes away without an event while its attach goes on ends that.
func TestTargetGoneDuringAttach(t *testing.T) {
	sim(t, func(r *rig) {
		r.w.srv.up = false
		ns := r.w.addSpace("web")
		o := r.options("web", ns)
		o.Timeout = time.Hour
		done := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := r.attachTo(o)
			done <- err
		}()
		time.Sleep(10 * time.Second)
		r.w.mu.Lock()
		r.w.spaces[ns.Ino].path = false
		r.w.mu.Unlock()
		r.k.Sweep()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "netns:web went away") || time.Since(start) > time.Minute {
			r.Errorf("after %v: %v", time.Since(start), err)
		}
		if vs := r.k.Leases("", false); len(vs) != 0 {
			r.Errorf("left: %+v", vs)
		}
	})
}

// An identity whose child is gone, of which no event has come, is attached anew.
func TestAttachWhereChildWas(t *testing.T) {
	sim(t, func(r *rig) {
		rec := r.attach("web")
		r.settle()
		if err := r.w.DeleteChild(rec.NS, rec.Child); err != nil {
			r.Fatal(err)
		}
		again, err := r.attachTo(r.options("web", rec.NS))
		if err != nil || again.Binding.Address != rec.Binding.Address {
			r.Errorf("%v, %+v", err, again.Binding)
		}
		if _, err := r.attachTo(r.options("web", rec.NS)); !errors.Is(err, ErrAttached) {
			r.Errorf("attached twice: %v", err)
		}
	})
}
