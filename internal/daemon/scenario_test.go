// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// soon bounds what must come to pass; it is no measure of how fast.
const soon = 20 * time.Second

// site is a host with a keeper on a LAN.
type site struct {
	*lab.Lab
	t    *testing.T
	h    *lab.Host
	k    *lab.Keeper
	wire *lab.Capture // at the host's parent
}

// newSite makes a host with a keeper, in a test that runs beside others.
func newSite(t *testing.T) *site {
	t.Helper()
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host")
	return &site{Lab: l, t: t, h: h, k: l.Keeper(h), wire: h.Capture(lab.Uplink, lab.DHCPAndARP)}
}

// attach runs the command for a container on the first parent, unless args name
// another.
func (s *site) attach(c *lab.Container, args ...string) api.Lease {
	s.t.Helper()
	return s.attachTarget(c.Target(), args...)
}

func (s *site) attachTarget(target string, args ...string) (l api.Lease) {
	s.t.Helper()
	args = append([]string{"attach", target}, args...)
	if !strings.Contains(strings.Join(args, " "), "--parent") {
		args = append(args, "--parent", lab.Uplink)
	}
	s.k.JSON(&l, args...)
	return l
}

func (s *site) leases(args ...string) (ls []api.Lease) {
	s.t.Helper()
	s.k.JSON(&ls, append([]string{"leases"}, args...)...)
	return ls
}

// renewed waits for a REQUEST of RENEWING after mark (RFC 2131, 4.3.2): unicast,
// from the leased address.
func (s *site) renewed(l api.Lease, mark int) lab.Packet {
	s.t.Helper()
	mac, addr := mac(s.t, l), addr(s.t, l)
	return s.wire.WaitAfter(mark, soon, "unicast renewal of "+l.Address, func(p lab.Packet) bool {
		return p.Is(dhcpv4.MessageTypeRequest, mac) && p.Unicast() && p.SrcIP == addr && bytes.Equal(p.SrcMAC, mac) &&
			p.DHCP.ClientIPAddr.Equal(addr.AsSlice()) && p.DHCP.RequestedIPAddress() == nil && p.DHCP.ServerIdentifier() == nil
	})
}

// silent fails the test when a message of the type was sent after mark.
func (s *site) silent(typ dhcpv4.MessageType, mark int) {
	s.t.Helper()
	for _, p := range s.wire.After(mark) {
		if p.Is(typ, nil) {
			s.t.Errorf("%v on the wire: %v", typ, p)
		}
	}
}

// events collects the keeper's events from now on.
func (s *site) events() *eventLog {
	s.t.Helper()
	log, open := &eventLog{s: s}, make(chan struct{})
	var once sync.Once
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	done.Go(func() {
		start := func() error { once.Do(func() { close(open) }); return nil }
		if err := api.NewClient(s.k.Socket).Events(ctx, start, log.add); err != nil && ctx.Err() == nil {
			s.t.Errorf("events: %v", err)
		}
	})
	s.t.Cleanup(func() { cancel(); done.Wait() })
	select {
	case <-open:
	case <-time.After(soon):
		s.t.Fatal("no events are sent")
	}
	return log
}

type eventLog struct {
	s   *site
	mu  sync.Mutex
	all []api.Event
}

func (l *eventLog) add(e api.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	return nil
}

// await returns the first event of a kind.
func (l *eventLog) await(kind string) (found api.Event) {
	l.s.t.Helper()
	l.s.Eventually(2*soon, "event "+kind, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.all, func(e api.Event) bool { return e.Kind == kind })
		if i >= 0 {
			found = l.all[i]
		}
		return i >= 0
	})
	return found
}

// bare waits until a container has nothing but loopback.
func (s *site) bare(c *lab.Container) {
	s.t.Helper()
	s.Eventually(soon, c.Name+" has no link", func() bool { return len(c.Links()) == 0 })
}

func mac(t *testing.T, l api.Lease) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(l.MAC)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func addr(t *testing.T, l api.Lease) netip.Addr {
	t.Helper()
	p, err := netip.ParsePrefix(l.Address)
	if err != nil {
		t.Fatalf("lease of %s: address %q: %v", l.Identity, l.Address, err)
	}
	return p.Addr()
}

// netnsFile is where the resolv.conf of a named namespace is.
func netnsFile(c *lab.Container) string { return filepath.Join("/etc/netns", c.Name, "resolv.conf") }
