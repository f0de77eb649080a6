// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Udhcpd starts busybox's udhcpd. Its log names neither the MAC of a message nor
// all messages, and its leases have no client identifiers.
func (l *Lab) Udhcpd(o ServerOptions) *Server {
	l.tb.Helper()
	return l.serve("udhcpd", udhcpd{}, o)
}

type udhcpd struct{}

func (udhcpd) ready() string { return "started" }

func (udhcpd) command(s *Server) (args, env []string, err error) {
	conf, leases := filepath.Join(s.dir, "udhcpd.conf"), filepath.Join(s.dir, "leases")
	if err := render("udhcpd.conf", conf, s); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(leases, os.O_CREATE|os.O_WRONLY, 0o644) // it complains otherwise
	if err != nil {
		return nil, nil, err
	}
	f.Close()
	args = []string{"-f"}
	if !s.Options.Ping {
		args = append(args, "-a", "10") // how long it waits for an answer to its ARP, in ms
	}
	return append(args, conf), nil, nil
}

// leases has udhcpd write its file and reads it: the time it was written in 8
// bytes, then leases of 36 (busybox, networking/udhcp/dhcpd.h, struct dyn_lease).
func (udhcpd) leases(s *Server) ([]ServerLease, error) {
	file := filepath.Join(s.dir, "leases")
	if s.process.Running() {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		s.process.Signal(unix.SIGUSR1)
	}
	const entry = 36
	var text []byte
	// It writes in pieces; the file is whole when it doesn't grow any more.
	deadline := time.Now().Add(5 * time.Second)
	for {
		b, err := os.ReadFile(file)
		if err == nil && len(b) >= 8 && (len(b)-8)%entry == 0 && len(b) == len(text) {
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("udhcpd did not write %s", file)
		}
		text = b
		time.Sleep(5 * time.Millisecond)
	}
	written := time.Unix(int64(binary.BigEndian.Uint64(text)), 0)
	var leases []ServerLease
	for b := text[8:]; len(b) >= entry; b = b[entry:] {
		left := binary.BigEndian.Uint32(b)
		mac := net.HardwareAddr(b[8:14])
		end := written.Add(time.Duration(left) * time.Second)
		// Without a MAC it is an address that was declined.
		if left == 0 || !time.Now().Before(end) || bytes.Equal(mac, make([]byte, 6)) {
			continue
		}
		name, _, _ := bytes.Cut(b[14:34], []byte{0})
		addr, _ := netip.AddrFromSlice(b[4:8])
		leases = append(leases, ServerLease{Expiry: end, MAC: mac.String(), Addr: addr, Hostname: string(name)})
	}
	return leases, nil
}

var udhcpdMessage = regexp.MustCompile(`(?:received|sending) (DISCOVER|OFFER|REQUEST|DECLINE|ACK|NAK|RELEASE|INFORM)(.*)`)

// parse reads: udhcpd: sending OFFER to 10.80.1.1.
func (udhcpd) parse(line string) (LogEntry, bool) {
	m := udhcpdMessage.FindStringSubmatch(line)
	if m == nil {
		return LogEntry{}, false
	}
	return entryOf(messageTypes["DHCP"+m[1]], strings.Fields(m[2])), true
}
