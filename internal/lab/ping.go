// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

var pings atomic.Uint32

// Ping sends ICMP echo requests from the namespace, ten a second, and returns
// the time that the first answered one took. An error says that none was within
// timeout.
func (n *NS) Ping(to netip.Addr, timeout time.Duration) (time.Duration, error) {
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping %v from %s: %w", to, n.Name, err)
	}
	defer conn.Close()
	id := int(uint16(os.Getpid()) ^ uint16(pings.Add(1)<<8))
	deadline := time.Now().Add(timeout)
	for seq := 1; time.Now().Before(deadline); seq++ {
		sent := time.Now()
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte("mvdhcp")}}
		frame, err := m.Marshal(nil)
		if err != nil {
			return 0, err
		}
		// An error here (no route yet, no ARP answer yet) is tried again.
		_, _ = conn.WriteTo(frame, &net.IPAddr{IP: to.AsSlice()})
		if echoed(conn, to, id, seq, sent.Add(100*time.Millisecond)) {
			return time.Since(sent), nil
		}
	}
	return 0, fmt.Errorf("ping %v from %s: no answer within %v", to, n.Name, timeout)
}

// echoed waits until the answer to one request is there. It returns after
// deadline at the earliest when there is none.
func echoed(conn net.PacketConn, to netip.Addr, id, seq int, deadline time.Time) bool {
	buf := make([]byte, 1500)
	_ = conn.SetReadDeadline(deadline)
	for {
		k, from, err := conn.ReadFrom(buf)
		if err != nil {
			time.Sleep(time.Until(deadline))
			return false
		}
		ip, ok := from.(*net.IPAddr)
		if !ok || addrOf(ip.IP) != to {
			continue
		}
		m, err := icmp.ParseMessage(1, buf[:k])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == id && e.Seq == seq {
			return true
		}
	}
}
