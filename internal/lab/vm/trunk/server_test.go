// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come; no test depends on how
// long it takes.
const patience = 30 * time.Second

// server is a dnsmasq on the link lan0 of a namespace.
type server struct {
	t      *testing.T
	leases string // its lease file

	mu  sync.Mutex
	log []string
}

// startServer returns when the server listens. It goes with the test, and its
// log is shown when the test fails.
func startServer(t *testing.T, ns string, network netip.Prefix) *server {
	t.Helper()
	s := &server{t: t, leases: filepath.Join(t.TempDir(), ns+".leases")}
	own := network.Addr().Next().String()
	first := strings.TrimSuffix(own, ".1") + ".50"
	last := strings.TrimSuffix(own, ".1") + ".99"
	if err := os.WriteFile(s.leases, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, "dnsmasq", "--keep-in-foreground",
		"--conf-file=/dev/null", "--user=root", "--group=root", "--port=0", "--pid-file=",
		"--interface=lan0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--log-facility=-", "--log-dhcp", "--dhcp-leasefile="+s.leases,
		"--dhcp-range="+first+","+last+",255.255.255.0,2m", "--dhcp-option=3,"+own)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start dnsmasq: %v", err)
	}
	ready := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.mu.Lock()
			s.log = append(s.log, lines.Text())
			s.mu.Unlock()
			if strings.Contains(lines.Text(), "DHCP, sockets bound") {
				close(ready)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", ns, strings.Join(s.log, "\n"))
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("dnsmasq in %s ended at once", ns)
	case <-time.After(patience):
		t.Fatalf("dnsmasq in %s does not listen", ns)
	}
	return s
}

// lease is the address the server holds for a MAC, or "".
func (s *server) lease(mac string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.leases)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		// expiry MAC address name client-id
		if f := strings.Fields(line); len(f) >= 3 && strings.EqualFold(f[1], mac) {
			return f[2]
		}
	}
	return ""
}

// holds waits until the server holds an address of its network for a MAC.
func (s *server) holds(mac string, network netip.Prefix) string {
	s.t.Helper()
	s.await("a lease for "+mac, func() bool { return s.lease(mac) != "" })
	held := s.lease(mac)
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
			data, _ := os.ReadFile(s.leases)
			s.t.Fatalf("no %s at the server; it holds:\n%s", what, data)
		}
	}
}
