// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
)

const (
	// claimBacklog is how many bytes of ARP may wait to be read: some hundred
	// packets. Only what waits takes memory.
	claimBacklog = 256 << 10
	// claimRate is how many packets are read in claimPeriod. What a flood
	// sends beyond that waits, and overflows the backlog.
	claimRate   = 1000
	claimPeriod = time.Second
)

// ClaimConn is a dhcpclient.ClaimConn on one link.
type ClaimConn struct {
	linkConn
	rate   int
	period time.Duration
}

// ListenClaims opens a ClaimConn on a link of the calling thread's network
// namespace. On the parent of macvlan children it hears the broadcasts of the
// wire, which reach parent and children, and none of what the children send, but
// for what is sent to a child in the parent's own namespace alone: that passes the
// sockets of the parent on its way (__netif_receive_skb_core in net/core/dev.c,
// orig_dev), and is marked Direct.
// The socket does not outlive its link: Listen ends when it goes.
func ListenClaims(ifindex int) (*ClaimConn, error) {
	s, err := openLink(ifindex, unix.ETH_P_ARP, claimFilter(), fmt.Sprintf("ARP listener on link %d", ifindex))
	if err != nil {
		return nil, err
	}
	if err := s.roomFor(claimBacklog); err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return &ClaimConn{linkConn: linkConn{socket: s, ifindex: ifindex}, rate: claimRate, period: claimPeriod}, nil
}

// Listen implements dhcpclient.ClaimConn. It allocates nothing per packet.
func (c *ClaimConn) Listen(heard func(dhcpclient.Claim)) error {
	n, since := 0, time.Now()
	for {
		length, err := c.file.Read(c.buf)
		switch {
		case c.closed.Load():
			return fmt.Errorf("%s: %w", c.name, net.ErrClosed)
		case err == nil:
		case errors.Is(err, io.EOF): // an empty packet
			continue
		case !errors.Is(err, unix.ENETDOWN) && passing(err):
			continue
		default:
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if claim, ok := parseClaim(c.buf[:length]); ok {
			heard(claim)
		}
		if n++; n < c.rate {
			continue
		}
		if wait := c.period - time.Since(since); wait > 0 {
			if err := c.pause(wait); err != nil {
				return err
			}
		}
		n, since = 0, time.Now()
	}
}

// pause waits, or until the socket is closed.
func (c *ClaimConn) pause(d time.Duration) error {
	const step = 100 * time.Millisecond
	for ; d > 0 && !c.closed.Load(); d -= step {
		time.Sleep(min(d, step))
	}
	if c.closed.Load() {
		return fmt.Errorf("%s: %w", c.name, net.ErrClosed)
	}
	return nil
}

// claimFilter passes what arpFilter does if the sender says an address. That
// leaves out probes.
func claimFilter() []bpf.Instruction {
	return program(append(arpTests(),
		test{load: bpf.LoadAbsolute{Off: offARP + 14, Size: 4}, want: 0, not: true},
	), nil, nil)
}
