// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestSiblingsSpeakForThemselves gives a namespace two children on one LAN: each
// answers ARP for its own address alone, and asks from it.
func TestSiblingsSpeakForThemselves(t *testing.T) {
	s := newSite(t)
	s.Dnsmasq(lab.ServerOptions{Lease: time.Hour})
	s.h.Plug("up1", s.LAN("lan"))
	c := s.Container("c")
	events := s.events()
	leases := []api.Lease{s.attach(c, "--ifname", "eth0"), s.attach(c, "--ifname", "eth1"), s.attach(c, "--ifname", "eth2", "--parent", "up1")}
	s.listens(2)
	peer := s.Host("peer")
	peer.AddAddr(lab.Uplink, netip.PrefixFrom(s.LAN("lan").Addr(7), 16).String())
	wire := peer.Capture(lab.Uplink, lab.ARPOnly)
	owner := map[netip.Addr]string{}
	for _, l := range leases {
		owner[addr(t, l)] = l.MAC
		if _, err := peer.Ping(addr(t, l), soon); err != nil {
			t.Error(err)
		}
	}
	_, _ = c.Ping(s.LAN("lan").Addr(200<<8|1), 300*time.Millisecond)
	answers := 0
	for _, p := range wire.All() {
		if p.ARP == nil || owner[p.ARP.SenderIP] == "" {
			continue
		}
		answers++
		if got := p.ARP.SenderMAC.String(); got != owner[p.ARP.SenderIP] {
			t.Errorf("%v speaks for %v, which is that of %v", got, p.ARP.SenderIP, owner[p.ARP.SenderIP])
		}
	}
	if answers < len(leases) {
		t.Errorf("%d ARP packets of %d addresses", answers, len(leases))
	}
	events.mu.Lock()
	defer events.mu.Unlock()
	for _, e := range events.all {
		if e.Kind == "conflict" {
			t.Errorf("taken for a conflict: %s", e.Message)
		}
	}
}

// TestReversePathFilter renews the leases of two children on one LAN in a
// namespace that drops what comes in by another interface than its answer would
// leave by.
func TestReversePathFilter(t *testing.T) {
	for _, mode := range []string{"1", "2"} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t)
			server := s.Dnsmasq(lab.ServerOptions{Lease: 2 * time.Minute, T1: 3 * time.Second, T2: 16 * time.Second})
			c := s.Container("c")
			if err := c.Do(func() error {
				for _, name := range []string{"all", "default"} {
					// /proc/sys/net is that of the thread which opens it.
					if err := os.WriteFile(fmt.Sprintf("/proc/sys/net/ipv4/conf/%s/rp_filter", name), []byte(mode), 0); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for _, l := range []api.Lease{s.attach(c, "--ifname", "eth0"), s.attach(c, "--ifname", "eth1")} {
				ack := s.wire.Wait(soon, "ACK of a unicast renewal of "+l.Address, func(p lab.Packet) bool {
					return p.Is(dhcpv4.MessageTypeAck, mac(t, l)) && p.DHCP.ClientIPAddr.Equal(addr(t, l).AsSlice())
				})
				s.Eventually(soon, "the lease of "+l.Address+" is renewed", func() bool {
					for _, now := range s.leases(c.Target()) {
						if now.MAC == l.MAC && now.Renewals > 0 {
							return true
						}
					}
					return false
				})
				if entry, ok := server.Lease(l.MAC); !ok || entry.Addr != addr(t, l) || !entry.Expiry.After(ack.Time) {
					t.Errorf("the server has %+v", entry)
				}
			}
			for _, p := range s.wire.All() {
				if p.Is(dhcpv4.MessageTypeRequest, nil) && !p.DHCP.ClientIPAddr.IsUnspecified() && !p.Unicast() && bytes.Equal(p.SrcMAC, p.DHCP.ClientHWAddr) {
					t.Errorf("it came to a broadcast: %v", p)
				}
			}
		})
	}
}
