// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPriorityTags: where the switch marks the priority of all it sends by tags
// with VLAN id 0 (802.1p), the server's replies reach a child, be they unicast or
// broadcast, on the NIC or, with a second tag, on a VLAN of it.
func TestPriorityTags(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	command(t, "tc", "-n switch qdisc add dev trunk clsact")
	t.Cleanup(func() { command(t, "tc", "-n switch qdisc del dev trunk clsact") })
	command(t, "tc", "-n switch filter add dev trunk egress matchall action vlan push id 0 protocol 802.1Q priority 5")
	l.namespace("a")
	for _, c := range []struct {
		test, parent, class string
		broadcast           bool
	}{
		{"unicast", nic, "none", false},
		{"broadcast", nic, "loud", true}, // how the server answers that class
		{"within a VLAN", nic + ".100", "loud", true},
	} {
		t.Run(c.test, func(t *testing.T) {
			l := newLAN(t)
			if c.parent == nic {
				runBatch(t, "bridge", "switch", []string{"vlan add dev trunk vid 100 pvid untagged"})
				t.Cleanup(func() { runBatch(t, "bridge", "switch", []string{"vlan add dev trunk vid 100"}) })
			}
			replies := tags(t)
			if got := k.do("attach", "netns:a", "--parent", c.parent, "--user-class", c.class); got.status != 0 {
				t.Fatalf("attach: status %d: %s", got.status, got.stderr)
			}
			a := k.leases()[0]
			l.granted("a", 100, a)
			if got := k.do("renew", "a"); got.status != 0 {
				t.Errorf("renew: status %d: %s", got.status, got.stderr)
			}
			for _, message := range []string{"OFFER", "ACK", "ACK of the renewal"} {
				select {
				case r := <-replies:
					if want := c.broadcast && message != "ACK of the renewal"; r.tag != 5<<13 || r.broadcast != want {
						t.Errorf("the %s came with tag %#x, broadcast %v; want priority 5 and VLAN 0, %v", message, r.tag, r.broadcast, want)
					}
				case <-time.After(patience):
					t.Fatalf("no %s came with a tag", message)
				}
			}
			k.detach("a")
			l.servers[100].freed(a.MAC)
		})
	}
}

// tagged is how a server's message came to the NIC.
type tagged struct {
	tag       uint16 // TCI of its outer tag (IEEE 802.1Q, 9.6)
	broadcast bool
}

// tags tells of every message to port 68 that comes to the NIC with a tag, until
// the test ends.
func tags(t *testing.T) <-chan tagged {
	t.Helper()
	i, err := net.InterfaceByName(nic)
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	sock := os.NewFile(uintptr(fd), nic)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		t.Fatal(err)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan tagged, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf, oob := make([]byte, 2048), make([]byte, 128)
		for {
			var n, oobn int
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				n, oobn, _, _, failed = unix.Recvmsg(int(fd), buf, oob, 0)
				return failed != unix.EAGAIN
			})
			if err != nil || failed != nil {
				return
			}
			if tag, ok := tagOf(oob[:oobn]); ok && toClient(buf[:n]) {
				found <- tagged{tag, buf[0] == 0xff}
			}
		}
	}()
	t.Cleanup(func() { sock.Close(); <-ended })
	return found
}

// tagOf is the tag that the kernel took off a frame (struct tpacket_auxdata in
// linux/if_packet.h).
func tagOf(oob []byte) (tci uint16, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			status := binary.NativeEndian.Uint32(m.Data)
			return binary.NativeEndian.Uint16(m.Data[16:]), status&unix.TP_STATUS_VLAN_VALID != 0
		}
	}
	return 0, false
}

// toClient says whether a frame, with one tag at most, is for port 68.
func toClient(frame []byte) bool {
	if len(frame) >= 18 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_8021Q {
		frame = frame[4:]
	}
	return len(frame) >= 38 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP &&
		frame[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(frame[36:]) == 68
}
