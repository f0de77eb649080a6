// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/dhcpclient"
)

var (
	macA  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0a}
	macB  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}
	hostA = netip.MustParseAddr("10.77.0.5")
	hostB = netip.MustParseAddr("10.77.0.1")

	cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// replyFrame is a frame of a server: ports 67 to 68.
func replyFrame(payload []byte) []byte {
	f := appendFrame(nil, macB, macA, hostB, hostA, payload)
	binary.BigEndian.PutUint16(f[34:], serverPort)
	binary.BigEndian.PutUint16(f[36:], clientPort)
	return f // the ports' sum, and so the checksum, is the same
}

// resum makes the IP checksum right again.
func resum(f []byte) []byte {
	ip := f[ethernetLen:]
	header := min(int(ip[0]&0xf)*4, len(ip))
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip[:header])))
	return f
}

// The checksums here were added up by hand (RFC 1071).
func TestAppendFrame(t *testing.T) {
	got := appendFrame(nil, macA, macB, hostA, hostB, []byte{1, 2, 3})
	want := []byte{
		0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x00,
		0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0x66, 0x2f, 10, 77, 0, 5, 10, 77, 0, 1,
		0, 68, 0, 67, 0, 11, 0xe6, 0xaf, 1, 2, 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frame (-want +got):\n%s", diff)
	}
}

// A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768).
func TestAppendFrameZeroChecksum(t *testing.T) {
	for v := range 1 << 16 {
		payload := []byte{byte(v >> 8), byte(v)}
		if f := appendFrame(nil, macA, macB, hostA, hostB, payload); f[40] == 0 && f[41] == 0 {
			t.Fatalf("payload %x is sent without a checksum", payload)
		}
	}
}

func TestParseFrame(t *testing.T) {
	payload := []byte("some payload of odd length!")
	set := func(off int, b ...byte) func(f []byte) []byte {
		return func(f []byte) []byte { copy(f[off:], b); return resum(f) }
	}
	tests := []struct {
		name    string
		edit    func(f []byte) []byte
		partial bool
		want    string // "": refused
		mac     net.HardwareAddr
	}{
		{name: "plain", want: string(payload), mac: macB},
		{name: "padded by the link", edit: func(f []byte) []byte { return append(f, make([]byte, 46)...) }, want: string(payload), mac: macB},
		{name: "no UDP checksum", edit: set(40, 0, 0), want: string(payload), mac: macB},
		{name: "UDP checksum not filled in yet", edit: set(40, 0x12, 0x34), partial: true, want: string(payload), mac: macB},
		{name: "IP options", edit: func(f []byte) []byte {
			f = append(f[:34:34], append([]byte{1, 1, 1, 0}, f[34:]...)...)
			f[14] = 0x46
			binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
			return resum(f)
		}, want: string(payload), mac: macB},
		{name: "UDP shorter than IP", edit: func(f []byte) []byte {
			binary.BigEndian.PutUint16(f[38:], udpLen+4)
			f[40], f[41] = 0, 0
			return f
		}, want: "some", mac: macB},
		{name: "don't fragment", edit: set(20, 0x40, 0), want: string(payload), mac: macB},
		{name: "from a group address", edit: set(6, 0x03), want: string(payload)},
		{name: "from MAC 0", edit: set(6, 0, 0, 0, 0, 0, 0), want: string(payload)},
		{name: "UDP length of 7", edit: func(f []byte) []byte {
			binary.BigEndian.PutUint16(f[38:], udpLen-1)
			return f
		}},

		{name: "wrong UDP checksum", edit: set(40, 0x12, 0x34)},
		{name: "payload changed", edit: set(44, 'X')},
		{name: "source changed", edit: set(29, 9)},
		{name: "wrong IP checksum", edit: func(f []byte) []byte { f[24]++; return f }},
		{name: "first fragment", edit: set(20, 0x20, 0)},
		{name: "later fragment", edit: set(20, 0x00, 0x10)},
		{name: "another port", edit: set(36, 0, 69)},
		{name: "TCP", edit: set(23, 6)},
		{name: "IPv6", edit: set(12, 0x86, 0xdd)},
		{name: "VLAN tag in the frame", edit: set(12, 0x81, 0)},
		{name: "version 6", edit: set(14, 0x65)},
		{name: "header of 16 bytes", edit: set(14, 0x44)},
		{name: "header longer than the packet", edit: set(14, 0x4f)},
		{name: "length beyond the frame", edit: set(16, 0x05, 0xdc)},
		{name: "length below the headers", edit: set(16, 0, 27)},
		{name: "UDP length beyond IP", edit: set(38, 0, 200)},
		{name: "UDP length of 0", edit: set(38, 0, 0)},
		{name: "cut off", edit: func(f []byte) []byte { return f[:len(f)-1] }},
		{name: "cut off in the header", edit: func(f []byte) []byte { return f[:20] }},
		{name: "nothing", edit: func(f []byte) []byte { return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := replyFrame(payload)
			if tt.edit != nil {
				f = tt.edit(f)
			}
			d, ok := parseFrame(f, tt.partial)
			if ok != (tt.want != "") || string(d.payload) != tt.want {
				t.Fatalf("payload %q, %v; want %q", d.payload, ok, tt.want)
			}
			if ok && (d.from != hostB || !bytes.Equal(d.fromMAC, tt.mac)) {
				t.Errorf("from %v, %v; want %v", d.from, d.fromMAC, tt.mac)
			}
		})
	}
}

func TestARP(t *testing.T) {
	probe := appendARP(nil, macA, netip.IPv4Unspecified(), hostA)
	want := []byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x06,
		0, 1, 8, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 77, 0, 5,
	}
	if diff := cmp.Diff(want, probe); diff != "" {
		t.Errorf("probe (-want +got):\n%s", diff)
	}
	edit := func(off int, b ...byte) []byte {
		f := bytes.Clone(probe)
		copy(f[off:], b)
		return f
	}
	tests := []struct {
		name  string
		frame []byte
		own   net.HardwareAddr
		want  dhcpclient.ARPPacket
		ok    bool
	}{
		{"probe", probe, macB, dhcpclient.ARPPacket{Request: true, SenderMAC: macA, SenderIP: netip.IPv4Unspecified(), TargetIP: hostA}, true},
		{"announcement", appendARP(nil, macA, hostA, hostA), macB, dhcpclient.ARPPacket{Request: true, SenderMAC: macA, SenderIP: hostA, TargetIP: hostA}, true},
		{"reply, padded", append(edit(20, 0, 2), make([]byte, 18)...), macB, dhcpclient.ARPPacket{SenderMAC: macA, SenderIP: netip.IPv4Unspecified(), TargetIP: hostA}, true},
		{"own", probe, macA, dhcpclient.ARPPacket{}, false},
		{"RARP", edit(20, 0, 3), macB, dhcpclient.ARPPacket{}, false},
		{"operation 0", edit(20, 0, 0), macB, dhcpclient.ARPPacket{}, false},
		{"another hardware", edit(14, 0, 6), macB, dhcpclient.ARPPacket{}, false},
		{"another protocol", edit(16, 0x86, 0xdd), macB, dhcpclient.ARPPacket{}, false},
		{"MAC of 8 bytes", edit(18, 8), macB, dhcpclient.ARPPacket{}, false},
		{"address of 16 bytes", edit(19, 16), macB, dhcpclient.ARPPacket{}, false},
		{"another EtherType", edit(12, 8, 0), macB, dhcpclient.ARPPacket{}, false},
		{"cut off", probe[:41], macB, dhcpclient.ARPPacket{}, false},
		{"nothing", nil, macB, dhcpclient.ARPPacket{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseARP(tt.frame, tt.own)
			if diff := cmp.Diff(tt.want, got, cmpAddr); diff != "" || ok != tt.ok {
				t.Errorf("%v (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(replyFrame([]byte("payload")), false)
	f.Add(resum(append(replyFrame(nil), 0, 0)), true)
	f.Add(appendFrame(nil, macA, macB, hostA, hostB, nil), false)
	f.Fuzz(func(t *testing.T, frame []byte, partial bool) {
		before := bytes.Clone(frame)
		d, ok := parseFrame(frame, partial)
		if !bytes.Equal(before, frame) {
			t.Error("parseFrame wrote into the frame")
		}
		if ok && (len(d.payload) > len(frame)-ethernetLen-ipv4Len-udpLen || !d.from.Is4()) {
			t.Errorf("%d bytes from %v out of a frame of %d", len(d.payload), d.from, len(frame))
		}
	})
}

func FuzzARP(f *testing.F) {
	f.Add(appendARP(nil, macA, netip.IPv4Unspecified(), hostA))
	f.Add(appendARP(nil, macB, hostB, hostB))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, ok := parseARP(frame, macA)
		claim, says := parseClaim(frame)
		if ok && says != !p.SenderIP.IsUnspecified() || ok && says && (claim.Addr != p.SenderIP || !bytes.Equal(claim.MAC[:], p.SenderMAC)) {
			t.Errorf("%+v out of %+v", claim, p)
		}
		if !ok {
			return
		}
		if len(p.SenderMAC) != 6 || bytes.Equal(p.SenderMAC, macA) || !p.SenderIP.Is4() || !p.TargetIP.Is4() {
			t.Errorf("%+v", p)
		}
		if p.Request && bytes.Equal(frame[:6], broadcastMAC) && len(frame) == ethernetLen+arpLen && bytes.Equal(frame[32:38], make([]byte, 6)) && bytes.Equal(frame[6:12], p.SenderMAC) {
			if again := appendARP(nil, p.SenderMAC, p.SenderIP, p.TargetIP); !bytes.Equal(again, frame) {
				t.Errorf("built again as %x from %x", again, frame)
			}
		}
	})
}
