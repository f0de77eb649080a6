// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"mvdhcp/internal/lab"
)

// TestBadInput gives every kind of it: one line on stderr, the exit status, and
// nothing left behind.
func TestBadInput(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	s.h.Plug("quiet0", s.LAN("nobody"))
	s.h.Plug("port0", s.LAN("lan"))
	if err := s.h.Do(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		port, err := netlink.LinkByName("port0")
		if err != nil {
			return err
		}
		up, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		// A child that is none of ours, with a MAC of its own.
		foreign := &netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: up.Attrs().Index, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xbb}, Flags: net.FlagUp},
			Mode:      netlink.MACVLAN_MODE_BRIDGE,
		}
		return errors.Join(netlink.LinkSetMaster(port, br), netlink.LinkAdd(foreign))
	}); err != nil {
		t.Fatal(err)
	}
	there, c := s.Container("there"), s.Container("c")
	kept := s.attach(there, "--identity", "kept", "--mac", "02:00:00:00:00:aa")
	links, hostLinks := len(there.Links()), len(s.h.Links())

	up, _ := s.h.Link(lab.Uplink)
	upMAC := up.MAC.String()
	attach := func(args ...string) []string {
		return append([]string{"attach", c.Target(), "--parent", lab.Uplink}, args...)
	}
	on := func(parent string) []string { return []string{"attach", c.Target(), "--parent", parent} }
	for name, tc := range map[string]struct {
		args   []string
		status int
		says   string // a regular expression
	}{
		"no namespace":           {[]string{"attach", "netns:no-such-thing", "--parent", lab.Uplink}, 1, "no-such-thing"},
		"no process":             {[]string{"attach", "pid:4194303", "--parent", lab.Uplink}, 1, "4194303"},
		"bad process":            {[]string{"attach", "pid:x", "--parent", lab.Uplink}, 2, "TARGET"},
		"parent missing":         {on("nothing0"), 1, "nothing0"},
		"parent is loopback":     {on("lo"), 1, "loopback"},
		"parent is a port":       {on("port0"), 1, "bridge"},
		"VLAN 0":                 {on("up0.0"), 2, "4094"},
		"VLAN 4095":              {on("up0.4095"), 2, "4094"},
		"parent too long":        {on("abcdefghijklmnop"), 2, "15 bytes"},
		"parent with a slash":    {on("a/b"), 2, "slash"},
		"ifname too long":        {attach("--ifname", "abcdefghijklmnop"), 2, "15 bytes"},
		"ifname with a slash":    {attach("--ifname", "a/b"), 2, "slash"},
		"ifname of the kernel's": {attach("--ifname", "all"), 2, "--ifname"},
		"no server allowed":      {attach("--allow-server", "10.80.0.99", "--timeout", "1s"), 3, `not allowed.*mvdhcp probe`},
		"no process can be it":   {[]string{"attach", "pid:99999999", "--parent", lab.Uplink}, 1, "no such target"},
		"ifname taken":           {attach("--ifname", "lo"), 1, "lo"},
		"ifname of a lease":      {[]string{"attach", there.Target(), "--parent", lab.Uplink, "--identity", "x", "--ifname", "eth0"}, 1, "eth0"},
		"MAC malformed":          {attach("--mac", "02:00"), 2, "--mac"},
		"MAC multicast":          {attach("--mac", "03:00:00:00:00:01"), 2, "multicast"},
		"MAC of a lease":         {attach("--mac", "02:00:00:00:00:aa"), 1, "in use"},
		"MAC of another's link":  {attach("--mac", "02:00:00:00:00:bb"), 1, "in use on up0 by .*mv0"},
		"MAC of the parent":      {attach("--mac", upMAC), 1, "that of up0 itself"},
		"address malformed":      {attach("--request-ip", "10.80.0"), 2, "--request-ip"},
		"address refused":        {attach("--request-ip", "10.80.251.7"), 1, "10.80.251.7"},
		"identity attached":      {attach("--identity", "kept"), 1, "kept"},
		"attached":               {[]string{"attach", there.Target(), "--parent", lab.Uplink, "--identity", "kept"}, 1, "attached"},
		"no parent":              {[]string{"attach", c.Target()}, 2, "--parent"},
		"unknown flag":           {attach("--colour", "red"), 2, "--colour"},
		"unknown command":        {[]string{"atach"}, 2, "atach"},
		"unknown lease":          {[]string{"leases", "nobody"}, 1, "nobody"},
		"renew of unknown":       {[]string{"renew", "nobody"}, 1, "nobody"},
		"release of unknown":     {[]string{"release", "nobody"}, 1, "nobody"},
		"detach of unattached":   {[]string{"detach", c.Target()}, 1, "not attached"},
		"no server":              {[]string{"attach", c.Target(), "--parent", "quiet0", "--timeout", "1s"}, 3, "quiet0"},
		"probe without a server": {[]string{"probe", "--parent", "quiet0"}, 3, "quiet0"},
		"no keeper to attach":    {[]string{"--socket", filepath.Join(s.Dir(), "none"), "attach", c.Target(), "--parent", lab.Uplink, "--no-start"}, 5, "none"},
		"no keeper to release":   {[]string{"--socket", filepath.Join(s.Dir(), "none"), "release", "kept"}, 5, "none"},
		"no keeper":              {[]string{"--socket", filepath.Join(s.Dir(), "none"), "leases"}, 5, "none"},
		"state dir is a file":    {[]string{"--socket", filepath.Join(s.Dir(), "b"), "serve", "--state-dir", "/dev/null/x"}, 1, "/dev/null/x"},
		"no VLANs in the kernel": {on("up0.7"), 1, "8021q"},
	} {
		if _, err := os.Stat("/proc/net/vlan"); name == "no VLANs in the kernel" && err == nil {
			continue // this kernel has them; internal/lab/vm/trunk attaches there
		}
		r := s.k.Run(tc.args...)
		refused(t, name, r, tc.status, tc.says)
		if got := c.Links(); len(got) != 0 {
			t.Errorf("%s: links left behind: %+v", name, got)
			for _, l := range got {
				c.DeleteLink(l.Name)
			}
		}
	}
	if got := server.Leases(); len(got) != 1 || got[0].MAC != kept.MAC {
		t.Errorf("leases left at the server: %+v", got)
	}
	if got := s.leases("--all"); len(got) != 1 || got[0].ID != kept.ID {
		t.Errorf("records left behind: %+v", got)
	}
	if len(there.Links()) != links || len(s.h.Links()) != hostLinks {
		t.Errorf("links left behind: %+v, %+v", there.Links(), s.h.Links())
	}
	server.Stop()
	refused(t, "renew without a server", s.k.Run("renew", kept.ID), 3, "mvdhcp probe --parent "+lab.Uplink)
}

// refused checks that a command failed with the status and one line on stderr
// that matches.
func refused(t *testing.T, name string, r lab.Result, status int, says string) {
	t.Helper()
	line := strings.TrimSuffix(r.Stderr, "\n")
	if r.Status != status || line == "" || strings.ContainsAny(line, "\n\x1b") || !regexp.MustCompile(says).MatchString(line) {
		t.Errorf("%s: want status %d and one line with %q: %v", name, status, says, r)
	}
	if r.Stdout != "" {
		t.Errorf("%s: prints %q", name, r.Stdout)
	}
}

// TestNotRoot runs commands as nobody.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, c := l.Host("host"), l.Container("c")
	// Nobody may not enter the folder of a checkout that is root's alone.
	bin := filepath.Join(l.Dir(), "mvdhcp")
	data, err := os.ReadFile(l.Binary())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"serve", "--state-dir", filepath.Join(l.Dir(), "state")},
		{"attach", c.Target(), "--parent", lab.Uplink},
	} {
		cmd := exec.Command(bin, append([]string{"--socket", filepath.Join(l.Dir(), "sock")}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		p := h.StartCommand(cmd)
		status := p.Exit(soon)
		if out := strings.TrimSpace(p.Output()); status != 1 || !strings.Contains(out, "root") || strings.Contains(out, "\n") {
			t.Errorf("%v: status %d: %s", args, status, out)
		}
	}
	if len(c.Links()) != 0 {
		t.Errorf("left behind: %+v", c.Links())
	}
}

// TestFullStateDirectory starts a keeper where its log has no room for the reason
// why it ends.
func TestFullStateDirectory(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, c := l.Host("host"), l.Container("c")
	k := l.NoKeeper(h)
	p := h.Start("unshare", "-m", "sh", "-c",
		`mkdir "$1" && mount -t tmpfs -o size=4k tmpfs "$1" && head -c 4096 /dev/zero >"$1/full" && MVDHCP_STATE_DIR="$1" exec "$0" --socket "$2" attach "$3" --parent "$4"`,
		l.Binary(), k.StateDir, k.Socket, c.Target(), lab.Uplink)
	status, out := p.Exit(soon), strings.TrimSpace(p.Output())
	if status != 5 || !strings.Contains(out, k.StateDir+" is full") || strings.Contains(out, "\n") {
		t.Errorf("status %d: %s", status, out)
	}
	if _, err := os.Stat(k.Socket); err == nil || len(c.Links()) != 0 {
		t.Errorf("left behind: %+v, and %s: %v", c.Links(), k.Socket, err)
	}
}

// TestWirelessParent shows the keeper a card as cfg80211 does, in a sysfs of its
// own.
func TestWirelessParent(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, c := l.Host("host"), l.Container("c")
	h.Plug("wl0", l.LAN("lan"))
	server := l.Dnsmasq(lab.ServerOptions{})
	k := l.NoKeeper(h)
	h.Start("unshare", "-m", "sh", "-c",
		`mount -t tmpfs tmpfs /sys && mkdir -p /sys/class/net/wl0/phy80211 && exec "$0" --socket "$1" serve --state-dir "$2"`,
		l.Binary(), k.Socket, k.StateDir)
	l.Eventually(soon, "the keeper answers", func() bool { return k.Run("status").Status == 0 })
	links := len(h.Links())
	for name, parent := range map[string]string{"wireless": "wl0", "VLAN on wireless": "wl0.5"} {
		refused(t, name, k.Run("attach", c.Target(), "--parent", parent), 1, "wl0.*is wireless")
	}
	if len(c.Links()) != 0 || len(h.Links()) != links || len(server.Leases()) != 0 {
		t.Errorf("left behind: %+v, %+v, %+v", c.Links(), h.Links(), server.Leases())
	}
	// The other card of the same host is a parent like any.
	k.MustRun("attach", c.Target(), "--parent", lab.Uplink)
	k.MustRun("detach", c.Target())
}
