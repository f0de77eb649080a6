// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bufio"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/lab"
)

// patience is how long a test waits for what must come; no test depends on how
// long it takes.
const patience = 30 * time.Second

// server is one test's view of a VLAN's DHCP server.
type server struct {
	t      *testing.T
	pid    int
	leases string // its lease file
}

// serverLog is what a server has said since it was started.
type serverLog struct {
	pid   int
	mu    sync.Mutex
	lines []string
}

func (l *serverLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// from is the log from a line on.
func (l *serverLog) from(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[n:], "\n")
}

// await returns when the log has a text at line n or later.
func (l *serverLog) await(t *testing.T, n int, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(l.from(n), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the server did not say %q", text)
		}
	}
}

func leaseFile(vid int) string {
	return filepath.Join(theLAN.leases, fmt.Sprintf("server%d.leases", vid))
}

// startServer returns when a dnsmasq listens on lan0 of the namespace. It lasts
// as long as the machine. A lease file that is there is read.
func startServer(t *testing.T, ns string, vid int) *serverLog {
	t.Helper()
	log := &serverLog{}
	own := router(vid).String()
	part := strings.TrimSuffix(own, "1")
	file, err := os.OpenFile(leaseFile(vid), os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	cmd := exec.Command("ip", "netns", "exec", ns, "dnsmasq", "--keep-in-foreground",
		"--conf-file=/dev/null", "--user=root", "--group=root", "--port=0", "--pid-file=",
		"--interface=lan0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--log-facility=-", "--log-dhcp", "--dhcp-leasefile="+file.Name(),
		"--dhcp-range="+part+"50,"+part+"99,255.255.255.0,10m", "--dhcp-option=3,"+own,
		"--dhcp-userclass=set:small,small", "--dhcp-option=tag:small,26,1300",
		"--dhcp-userclass=set:loud,loud", "--dhcp-broadcast=tag:loud")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start dnsmasq: %v", err)
	}
	log.pid = cmd.Process.Pid
	ready := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			log.mu.Lock()
			log.lines = append(log.lines, lines.Text())
			log.mu.Unlock()
			if strings.Contains(lines.Text(), "DHCP, sockets bound") {
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("dnsmasq in %s ended at once: %s", ns, log.from(0))
	case <-time.After(patience):
		t.Fatalf("dnsmasq in %s does not listen: %s", ns, log.from(0))
	}
	return log
}

// granted is what the server holds: the address of each MAC.
func (s *server) granted() map[string]string {
	s.t.Helper()
	data, err := lab.ReadIdle(s.pid, s.leases, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(data)) {
		// expiry MAC address name client-id
		if f := strings.Fields(line); len(f) == 5 {
			all[strings.ToLower(f[1])] = f[2]
		}
	}
	return all
}

// lease is the address the server holds for a MAC, or "".
func (s *server) lease(mac string) string {
	s.t.Helper()
	return s.granted()[strings.ToLower(mac)]
}

// count is how many leases the server holds.
func (s *server) count() int {
	s.t.Helper()
	return len(s.granted())
}

// macs are the clients the server holds leases for, sorted.
func (s *server) macs() []string {
	s.t.Helper()
	return slices.Sorted(maps.Keys(s.granted()))
}

// held are the addresses and MACs of the server's leases, sorted.
func (s *server) held() (all []string) {
	s.t.Helper()
	for mac, addr := range s.granted() {
		all = append(all, mac+" "+addr)
	}
	slices.Sort(all)
	return all
}

// holds waits until the server holds an address of its network for a MAC.
func (s *server) holds(mac string, network netip.Prefix) string {
	s.t.Helper()
	var held string
	s.await("a lease for "+mac, func() bool { held = s.lease(mac); return held != "" })
	if a, err := netip.ParseAddr(held); err != nil || !network.Contains(a) {
		s.t.Fatalf("the server holds %q for %s, want one of %v", held, mac, network)
	}
	return held
}

// freed waits until the server holds nothing for a MAC.
func (s *server) freed(mac string) {
	s.t.Helper()
	s.await("the release of "+mac, func() bool { return s.lease(mac) == "" })
}

// await returns when the lease file is as it should be, looking again each time
// it is written.
func (s *server) await(what string, so func() bool) {
	s.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, s.leases, unix.IN_MODIFY); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for end := time.Now().Add(patience); !so(); {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(time.Until(end).Milliseconds()))
		if n > 0 {
			_, _ = unix.Read(fd, buf)
		}
		if time.Now().After(end) || err != nil && err != unix.EINTR {
			data, _ := lab.ReadIdle(s.pid, s.leases, 0)
			s.t.Fatalf("no %s at the server; it holds:\n%s", what, data)
		}
	}
}
