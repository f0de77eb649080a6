// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestAcquireSendErrors(t *testing.T) {
	tests := []struct {
		name     string
		err      error
		noAnswer bool
	}{
		{"link down", syscall.ENETDOWN, true},
		{"queue full", syscall.ENOBUFS, true},
		{"not permitted", syscall.EPERM, false},
		{"link gone", syscall.ENXIO, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			within(t, 10*time.Second, func(t *testing.T, ctx context.Context) {
				conn := newFakeConn(nil)
				conn.sendErr = tt.err
				_, err := newClient(t, conn).Acquire(ctx)
				if got := errors.Is(err, ErrNoAnswer); got != tt.noAnswer {
					t.Errorf("error %v: retried = %v", err, got)
				}
				if !strings.Contains(err.Error(), tt.err.Error()) {
					t.Errorf("error %q does not say %q", err, tt.err)
				}
				if !tt.noAnswer && (len(conn.sent) != 1 || !errors.Is(err, tt.err)) {
					t.Errorf("error %v after %d messages", err, len(conn.sent))
				}
			})
		})
	}
}

func TestBadParams(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name string
		edit func(*Params)
		want string
	}{
		{"short MAC", func(p *Params) { p.MAC = p.MAC[:5] }, "5 bytes instead of 6"},
		{"no MAC", func(p *Params) { p.MAC = nil }, "0 bytes instead of 6"},
		{"short client identifier", func(p *Params) { p.ClientID = []byte{1} }, "client identifier of 1 bytes"},
		{"long client identifier", func(p *Params) { p.ClientID = []byte(long) }, "client identifier of 256 bytes"},
		{"long hostname", func(p *Params) { p.Hostname = long }, "hostname of 256 bytes"},
		{"long user class", func(p *Params) { p.UserClass = long }, "user class of 256 bytes"},
		{"required but not named", func(p *Params) { p.RequireIP = true }, "none is requested"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := newFakeConn(nil)
			c := newClient(t, conn)
			tt.edit(&c.Params)
			_, err := c.Acquire(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if len(conn.sent) != 0 {
				t.Errorf("sent %v all the same", conn.types())
			}
		})
	}
}

// Loss and repetition in every combination of the first three messages.
func TestAcquireLossAndDuplicates(t *testing.T) {
	for fate := range 81 {
		within(t, 5*time.Minute, func(t *testing.T, ctx context.Context) {
			left := fate
			conn := newFakeConn(func(c *fakeConn, m *dhcpv4.DHCPv4, n int) {
				copies := 1
				if len(c.sent) <= 4 {
					copies, left = left%3, left/3
				}
				for range copies {
					goodServer(c, m, n)
				}
			})
			b, err := newClient(t, conn).Acquire(ctx)
			if err != nil || b.Address.Addr() != leased {
				t.Errorf("fate %d: %v, %v", fate, b.Address, err)
			}
		})
	}
}

func TestAcquireCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		start := time.Now()
		_, err := newClient(t, newFakeConn(nil)).Acquire(ctx)
		if !errors.Is(err, context.Canceled) || time.Since(start) != 5*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

func TestRequestedFails(t *testing.T) {
	within(t, time.Minute, func(t *testing.T, ctx context.Context) {
		broken := errors.New("link is gone")
		c := newClient(t, newFakeConn(goodServer))
		c.Requested = func(context.Context) error { return broken }
		b, err := c.Acquire(ctx)
		if !errors.Is(err, broken) || b.Address.Addr() != leased {
			t.Errorf("got %v, %v; want the binding, which has to be released, and the error", b.Address, err)
		}
	})
}
