// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"mvdhcp/provision"
)

// frames are the DHCP messages that clients sent to a namespace, from when capture was
// called on.
type frames struct {
	t    *testing.T
	mu   sync.Mutex
	sent []message
}

type message struct {
	*dhcpv4.DHCPv4
	link string // that it came by
}

// capture listens on all links that a namespace has until the test ends.
func capture(t *testing.T, ns string) *frames {
	t.Helper()
	n, err := provision.Open("/run/netns/" + ns)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var sock *os.File
	err = n.Do(func() error {
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // network byte order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		sock = os.NewFile(uintptr(fd), ns)
		return err
	})
	if err != nil {
		t.Fatalf("capture in %s: %v", ns, err)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	byIndex := map[int]string{}
	for name, l := range links(t, ns) {
		byIndex[l.Index] = name
	}
	f := &frames{t: t}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			var n int
			var from unix.Sockaddr
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				n, from, failed = unix.Recvfrom(int(fd), buf, 0)
				return failed != unix.EAGAIN
			})
			if err != nil || failed != nil {
				return
			}
			if m := fromClient(buf[:n]); m != nil {
				f.mu.Lock()
				f.sent = append(f.sent, message{m, byIndex[from.(*unix.SockaddrLinklayer).Ifindex]})
				f.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { sock.Close(); <-ended })
	return f
}

// fromClient reads the DHCP message to port 67 in an untagged frame, nil if there
// is none.
func fromClient(frame []byte) *dhcpv4.DHCPv4 {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[23] != unix.IPPROTO_UDP {
		return nil
	}
	udp := frame[14:]
	if header := int(udp[0]&15) * 4; len(udp) >= header+8 {
		udp = udp[header:]
	}
	if binary.BigEndian.Uint16(udp[2:]) != 67 {
		return nil
	}
	m, err := dhcpv4.FromBytes(udp[8:])
	if err != nil {
		return nil
	}
	return m
}

// discovers is how many DISCOVERs came by a link.
func (f *frames) discovers(link string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.sent {
		if m.MessageType() == dhcpv4.MessageTypeDiscover && m.link == link {
			n++
		}
	}
	return n
}

// verified checks that the client with this MAC asked for its address by
// INIT-REBOOT (RFC 2131, 4.3.2), and for no other.
func (f *frames) verified(mac, address string) {
	f.t.Helper()
	own := netip.MustParsePrefix(address).Addr().AsSlice()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var all []string
		reboots := 0
		f.mu.Lock()
		for _, m := range f.sent {
			if m.ClientHWAddr.String() != mac {
				continue
			}
			all = append(all, m.Summary())
			if m.MessageType() == dhcpv4.MessageTypeDiscover {
				f.t.Errorf("%s sent a DISCOVER", mac)
			}
			if m.MessageType() == dhcpv4.MessageTypeRequest && m.ServerIdentifier() == nil &&
				m.ClientIPAddr.IsUnspecified() && m.RequestedIPAddress().Equal(own) {
				reboots++
			}
		}
		f.mu.Unlock()
		if f.t.Failed() || reboots > 0 {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s did not verify %s; it sent:\n%s", mac, address, strings.Join(all, "\n"))
		}
	}
}
