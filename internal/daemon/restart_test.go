// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// TestDamaged starts a keeper on a state file that is none: it is set aside and
// the children are found again.
func TestDamaged(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	a, b := s.Container("a"), s.Container("b")
	process := b.Sleep()
	b.Delete() // it is found by its process
	la, lb := s.attach(a), s.attachTarget(target(process))
	s.k.Term()
	file := filepath.Join(s.k.StateDir, "leases.db")
	junk := bytes.Repeat([]byte("junk"), 8192)
	if err := os.WriteFile(file, junk, 0o600); err != nil {
		t.Fatal(err)
	}
	mark := s.wire.Mark()
	s.k.Start()
	aside, _ := filepath.Glob(file + ".*")
	if len(aside) != 1 {
		t.Fatalf("set aside: %v, want one file", aside)
	}
	if text, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(text, junk) {
		t.Errorf("%s is not what was damaged: %v", aside[0], err)
	}
	if out := s.k.Process().Output(); !strings.Contains(out, aside[0]) {
		t.Errorf("the keeper does not say where the damaged file is:\n%s", out)
	}
	for _, l := range []api.Lease{la, lb} {
		s.Eventually(soon, "the lease of "+l.Identity+" is found again", func() bool {
			r := s.k.Run("leases", "--json", l.MAC)
			return r.Status == 0 && strings.Contains(r.Stdout, `"`+l.Address+`"`) && strings.Contains(r.Stdout, `"bound"`)
		})
	}
	s.silent(dhcpv4.MessageTypeDiscover, mark)
	if got := a.Addr("eth0").Prefix.String(); got != la.Address {
		t.Errorf("address %s, want %s", got, la.Address)
	}
	s.k.MustRun("detach", a.Target())
	s.k.MustRun("release", lb.MAC)
	server.WaitEmpty(soon)
}

// TestHalfDone kills the keeper in the middle of an attach: the next start
// leaves no link and no lease of it.
func TestHalfDone(t *testing.T) {
	t.Run("waiting for an OFFER", func(t *testing.T) {
		s := newSite(t)
		server := s.Dnsmasq(lab.ServerOptions{})
		server.Freeze()
		c := s.Container("c")
		s.k.Command("attach", c.Target(), "--parent", lab.Uplink)
		s.wire.Wait(soon, "DISCOVER", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, nil) })
		s.k.Kill9()
		if len(c.Links()) != 1 {
			t.Fatalf("half an attach has left %+v", c.Links())
		}
		s.k.Start()
		s.bare(c)
		server.Thaw()
		s.Eventually(soon, "no record", func() bool { return len(s.leases()) == 0 })
		server.WaitEmpty(soon)
	})
	t.Run("waiting for an ACK", func(t *testing.T) {
		s := newSite(t)
		server := s.Embedded(lab.ServerOptions{})
		// The server grants the address, and its ACK is lost.
		server.OnMessage(func(req *dhcpv4.DHCPv4, replies []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			if req.MessageType() == dhcpv4.MessageTypeRequest {
				return nil
			}
			return replies
		})
		c := s.Container("c")
		s.k.Command("attach", c.Target(), "--parent", lab.Uplink)
		s.Eventually(soon, "the REQUEST is repeated; the offer is stored by then", func() bool {
			return len(s.wire.Match(func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeRequest, nil) })) == 2
		})
		if got := len(server.Leases()); got != 1 {
			t.Fatalf("the server has granted %d leases, want 1", got)
		}
		s.k.Kill9()
		s.k.Start()
		s.bare(c)
		s.Eventually(soon, "the server has its address back", func() bool { return len(server.Leases()) == 0 })
		s.Eventually(soon, "no record", func() bool { return len(s.leases()) == 0 })
	})
}

// TestInterrupted ends an attach by Ctrl-C.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	server.Freeze()
	c := s.Container("c")
	p := s.k.Command("attach", c.Target(), "--parent", lab.Uplink)
	s.wire.Wait(soon, "DISCOVER", func(p lab.Packet) bool { return p.Is(dhcpv4.MessageTypeDiscover, nil) })
	p.Signal(unix.SIGINT)
	if status := p.Exit(soon); status != 130 {
		t.Errorf("exit status %d, want 130: %s", status, p.Output())
	}
	if links, ls := c.Links(), s.leases("--all"); len(links) != 0 || len(ls) != 0 {
		t.Errorf("left behind: links %+v, leases %+v", links, ls)
	}
	server.Thaw()
	server.WaitEmpty(soon)
}

// TestSecondKeeper has a keeper refuse a socket and a state directory that
// another one has.
func TestSecondKeeper(t *testing.T) {
	s := newSite(t)
	for name, args := range map[string][]string{
		"socket":          {"--socket", s.k.Socket, "serve", "--state-dir", filepath.Join(s.Dir(), "other")},
		"state directory": {"--socket", filepath.Join(s.Dir(), "other.sock"), "serve", "--state-dir", s.k.StateDir},
	} {
		r := s.h.Mvdhcp(nil, args...)
		if r.Status != 1 || strings.Count(strings.TrimSpace(r.Stderr), "\n") != 0 {
			t.Errorf("the same %s: status %d, want 1 and one line: %s", name, r.Status, r.Stderr)
		}
	}
	s.k.MustRun("status")
}

// TestAutostart attaches without a keeper: one is started and outlives the
// command.
func TestAutostart(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	h, c := l.Host("host"), l.Container("c")
	k := l.NoKeeper(h)
	r := h.Mvdhcp([]string{"MVDHCP_STATE_DIR=" + k.StateDir}, "--socket", k.Socket, "attach", c.Target(), "--parent", lab.Uplink)
	var st api.Status
	k.JSON(&st, "status")
	t.Cleanup(func() { _ = unix.Kill(st.PID, unix.SIGKILL) })
	if r.Status != 0 || !strings.Contains(r.Stderr, filepath.Join(k.StateDir, "keeper.log")) || strings.Contains(r.Stdout, "keeper.log") {
		t.Errorf("%v", r)
	}
	if _, err := os.Stat(filepath.Join(k.StateDir, "keeper.log")); err != nil {
		t.Error(err)
	}
	if len(server.Leases()) != 1 || !c.Addr("eth0").Prefix.IsValid() {
		t.Errorf("leases %+v, addresses %+v", server.Leases(), c.Addrs("eth0"))
	}
	k.MustRun("detach", c.Target())
	server.WaitEmpty(soon)
	if st.Uptime < 0 || st.StorePath == "" || time.Since(st.StartedAt) < 0 {
		t.Errorf("status %+v", st)
	}
}
