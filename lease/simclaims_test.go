// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net"
	"net/netip"
	"syscall"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// simClaims is an ARP listener on a parent.
type simClaims struct {
	w      *world
	parent string
	in     chan dhcpclient.Claim
	done   chan struct{}
}

func (w *world) Claims(p provision.Parent) (dhcpclient.ClaimConn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parents[p.Name] == nil || w.parents[p.Name].Index != p.Index {
		return nil, syscall.ENODEV
	}
	c := &simClaims{w: w, parent: p.Name, in: make(chan dhcpclient.Claim, 64), done: make(chan struct{})}
	w.heard[c] = true
	return c, nil
}

// claim has a host beyond the parent broadcast ARP.
func (w *world) claim(parent string, mac net.HardwareAddr, addr netip.Addr) {
	w.hear(parent, dhcpclient.Claim{MAC: [6]byte(mac), Addr: addr})
}

// hear has the parent's listeners hear a claim.
func (w *world) hear(parent string, claim dhcpclient.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.heard {
		if c.parent == parent {
			c.in <- claim
		}
	}
}

func (c *simClaims) Listen(heard func(dhcpclient.Claim)) error {
	for {
		select {
		case claim := <-c.in:
			heard(claim)
		case <-c.done:
			return syscall.ENETDOWN
		}
	}
}

func (c *simClaims) Close() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.end()
	return nil
}

// end is Close; the world's lock is held.
func (c *simClaims) end() {
	if c.w.heard[c] {
		delete(c.w.heard, c)
		close(c.done)
	}
}

// dropParent takes a parent away, and what listens at it. The lock is held.
func (w *world) dropParent(name string) {
	delete(w.parents, name)
	for c := range w.heard {
		if c.parent == name {
			c.end()
		}
	}
}
