// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

var fullParams = Params{
	MAC:         clientMAC,
	ClientID:    append([]byte{1}, clientMAC...),
	Hostname:    "web",
	VendorClass: "vendor",
	UserClass:   "class",
	RequestIP:   leased,
}

// messages are all that a client can say.
func messages() map[string]*dhcpv4.DHCPv4 {
	p, h := fullParams, header{xid: dhcpv4.TransactionID{0xde, 0xad, 0xbe, 0xef}, secs: 3}
	toAll := h
	toAll.broadcast = true
	bare := Params{MAC: clientMAC}
	return map[string]*dhcpv4.DHCPv4{
		"discover":           p.discover(h),
		"discover-broadcast": p.discover(toAll),
		"discover-bare":      bare.discover(h),
		"request-selecting":  p.requestSelecting(h, leased, serverA),
		"request-reboot":     p.requestReboot(h, leased),
		"request-extend":     p.requestExtend(h, leased),
		"decline":            p.decline(h, leased, serverA, "in use"),
		"release":            p.release(h, leased, serverA, "released"),
	}
}

func TestMessagesGolden(t *testing.T) {
	for name, m := range messages() {
		t.Run(name, func(t *testing.T) {
			b := m.ToBytes()
			if len(b) < 300 {
				t.Errorf("%d bytes, want 300 at least", len(b))
			}
			golden(t, "client-"+name+".hex", hexLines(b))
		})
	}
}

// The fields and options of RFC 2131, table 5.
func TestMessages(t *testing.T) {
	ask := []uint8{12, 55, 57, 60, 77}
	tests := []struct {
		name    string
		ciaddr  netip.Addr
		options []uint8 // beside 53 and 61
	}{
		{"discover", netip.IPv4Unspecified(), append(ask, 50)},
		{"request-selecting", netip.IPv4Unspecified(), append(ask, 50, 54)},
		{"request-reboot", netip.IPv4Unspecified(), append(ask, 50)},
		{"request-extend", leased, ask},
		{"decline", netip.IPv4Unspecified(), []uint8{50, 54, 56}},
		{"release", leased, []uint8{54, 56}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Decode(messages()[tt.name].ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			want := map[uint8]bool{53: true, 61: true}
			for _, o := range tt.options {
				want[o] = true
			}
			got := map[uint8]bool{}
			for o := range m.Options {
				got[o] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
			if !m.ClientIPAddr.Equal(ipOf(tt.ciaddr)) || m.ClientHWAddr.String() != clientMAC.String() ||
				m.NumSeconds != 3 || m.IsBroadcast() || m.OpCode != dhcpv4.OpcodeBootRequest || !m.GatewayIPAddr.IsUnspecified() {
				t.Errorf("header:\n%s", m.Summary())
			}
		})
	}
	m := messages()["discover"]
	if diff := cmp.Diff([]byte{1, 121, 3, 33, 6, 15, 119, 12, 26, 28, 42, 51, 54, 58, 59}, m.Options[55]); diff != "" {
		t.Errorf("parameter request list (-want +got):\n%s", diff)
	}
	if size, err := m.MaxMessageSize(); size != 1472 || err != nil {
		t.Errorf("maximum message size %d, %v", size, err)
	}
	if bare := messages()["discover-bare"]; len(bare.Options) != 3 {
		t.Errorf("empty parameters are sent:\n%s", bare.Summary())
	}
}
