// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestServers takes a lease from each server and gives it back, and compares
// what the server's files and log say with what went over the wire.
func TestServers(t *testing.T) {
	for _, tt := range []struct {
		kind     string
		start    func(*Lab, ServerOptions) *Server
		clientID bool // in the lease file
		log      map[dhcpv4.MessageType]int
	}{
		{"dnsmasq", (*Lab).Dnsmasq, true, map[dhcpv4.MessageType]int{
			dhcpv4.MessageTypeDiscover: 1, dhcpv4.MessageTypeOffer: 1, dhcpv4.MessageTypeRequest: 1,
			dhcpv4.MessageTypeAck: 1, dhcpv4.MessageTypeRelease: 1}},
		{"dhcpd", (*Lab).Dhcpd, true, map[dhcpv4.MessageType]int{
			dhcpv4.MessageTypeDiscover: 1, dhcpv4.MessageTypeOffer: 1, dhcpv4.MessageTypeRequest: 1,
			dhcpv4.MessageTypeAck: 1, dhcpv4.MessageTypeRelease: 1}},
		{"kea", (*Lab).Kea, true, map[dhcpv4.MessageType]int{
			dhcpv4.MessageTypeDiscover: 1, dhcpv4.MessageTypeOffer: 1, dhcpv4.MessageTypeRequest: 1,
			dhcpv4.MessageTypeAck: 1, dhcpv4.MessageTypeRelease: 1}},
		{"udhcpd", (*Lab).Udhcpd, false, nil},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			l := New(t)
			s := tt.start(l, ServerOptions{T1: 40 * time.Second, T2: 100 * time.Second})
			wire := s.Capture(ServerIf, DHCPOnly)
			client := l.Host("client").Bare(Uplink)
			mac := client.MAC.String()
			id := dhcpv4.OptClientIdentifier(append([]byte{1}, client.MAC...))
			name := dhcpv4.OptHostName("web")

			ack, err := client.DORA(10*time.Second, dhcpv4.WithOption(id), dhcpv4.WithOption(name))
			if err != nil {
				t.Fatalf("%v\n%s", err, s.Output())
			}
			if got := []time.Duration{ack.IPAddressLeaseTime(0), ack.IPAddressRenewalTime(0), ack.IPAddressRebindingTime(0)}; !cmp.Equal(
				got, []time.Duration{120 * time.Second, 40 * time.Second, 100 * time.Second}) {
				t.Errorf("lease, T1, T2 = %v", got)
			}
			if got := addrOf(ack.Router()[0]); got != s.Addr {
				t.Errorf("router %v, want %v", got, s.Addr)
			}
			addr := addrOf(ack.YourIPAddr)
			leases := s.WaitLeases(5*time.Second, "one lease", func(l []ServerLease) bool { return len(l) == 1 })
			want := ServerLease{Expiry: leases[0].Expiry, MAC: mac, Addr: addr, Hostname: "web"}
			if tt.clientID {
				want.ClientID = "01" + mac[0:2] + mac[3:5] + mac[6:8] + mac[9:11] + mac[12:14] + mac[15:17]
			}
			if diff := cmp.Diff(want, leases[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("lease file (-want +got):\n%s", diff)
			}
			if left := time.Until(leases[0].Expiry); left < time.Minute || left > 2*time.Minute {
				t.Errorf("lease ends in %v", left)
			}

			release, err := dhcpv4.NewReleaseFromACK(ack, dhcpv4.WithOption(id))
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Send(release, addr); err != nil {
				t.Fatal(err)
			}
			s.WaitEmpty(5 * time.Second)
			wire.Wait(time.Second, "RELEASE", func(p Packet) bool { return p.Is(dhcpv4.MessageTypeRelease, client.MAC) })
			for kind, n := range tt.log {
				s.WaitCount(5*time.Second, kind, mac, n)
				if got := s.Count(kind, mac); got != n {
					t.Errorf("log tells of %d %v, want %d\n%s", got, kind, n, s.Output())
				}
			}

			// The same client again, after a restart and with nothing left.
			s.Restart()
			s.Forget()
			if _, err := client.DORA(10*time.Second, dhcpv4.WithOption(id)); err != nil {
				t.Errorf("after a restart: %v\n%s", err, s.Output())
			}
		})
	}
}

// TestReservations has each server give a client the address kept for its MAC.
func TestReservations(t *testing.T) {
	for kind, start := range map[string]func(*Lab, ServerOptions) *Server{
		"dnsmasq": (*Lab).Dnsmasq, "dhcpd": (*Lab).Dhcpd, "kea": (*Lab).Kea, "udhcpd": (*Lab).Udhcpd,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := New(t)
			client := l.Host("client").Bare(Uplink)
			want := l.LAN("lan").Addr(77)
			s := start(l, ServerOptions{Reserved: map[string]netip.Addr{client.MAC.String(): want}})
			ack, err := client.DORA(10 * time.Second)
			if err != nil {
				t.Fatalf("%v\n%s", err, s.Output())
			}
			if got := addrOf(ack.YourIPAddr); got != want {
				t.Errorf("address %v, want the reserved %v", got, want)
			}
		})
	}
}
