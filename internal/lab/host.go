// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Uplink is the name of a host's first parent.
const Uplink = "up0"

// Host is a machine on the LAN: a namespace in which a keeper can run, with one
// parent, Uplink, that is up and has no address.
type Host struct {
	*NS
	mu    sync.Mutex
	ports map[string]port // by parent
}

type port struct {
	lan  *LAN
	name string
}

// Host makes a host on the lab's first LAN.
func (l *Lab) Host(name string) *Host {
	l.tb.Helper()
	h := &Host{NS: l.NS(name), ports: map[string]port{}}
	h.Plug(Uplink, l.LAN("lan"))
	return h
}

// Plug gives the host one more parent, on any LAN.
func (h *Host) Plug(parent string, lan *LAN) {
	h.lab.tb.Helper()
	name := lan.plug(h.NS, parent)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[parent] = port{lan, name}
}

// SetCarrier pulls a parent's cable out or puts it back. The parent itself
// stays up.
func (h *Host) SetCarrier(parent string, on bool) {
	h.lab.tb.Helper()
	h.mu.Lock()
	p, ok := h.ports[parent]
	h.mu.Unlock()
	if !ok {
		h.lab.tb.Fatalf("lab: %s: no cable at %s", h.Name, parent)
	}
	p.lan.sw.SetLink(p.name, on)
}

// Container is a namespace to attach to. The lab's hosts all see it under its
// path; it has nothing but loopback.
type Container struct{ *NS }

// Container makes one.
func (l *Lab) Container(name string) *Container {
	l.tb.Helper()
	return &Container{l.NS(name)}
}

// Target names the container on mvdhcp's command line.
func (c *Container) Target() string { return "netns:" + c.Name }

// Sleep starts a process in the container that does nothing until it is killed.
func (c *Container) Sleep() *Process {
	c.lab.tb.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"lab-sleeper"}
	cmd.Env = append(os.Environ(), sleeperEnv+"=1")
	p := c.StartCommand(cmd)
	p.Name, p.quiet = "sleeper", true
	return p
}

// SleepInRoot is Sleep with a root directory and a mount namespace of its own,
// which begin with the given files (path → content), as a container's do.
func (c *Container) SleepInRoot(files map[string]string) (p *Process, root string) {
	c.lab.tb.Helper()
	root = filepath.Join(c.lab.dir, c.lab.unique(c.Name+"-root"))
	for _, dir := range []string{"bin", "etc", "proc", "tmp"} {
		c.lab.must(os.MkdirAll(filepath.Join(root, dir), 0o755), "make root of %s", c.Name)
	}
	busybox, err := os.ReadFile(c.lab.Tool("busybox"))
	c.lab.must(err, "read busybox")
	c.lab.must(os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755), "make root of %s", c.Name)
	for name, text := range files {
		path := filepath.Join(root, name)
		c.lab.must(os.MkdirAll(filepath.Dir(path), 0o755), "make root of %s", c.Name)
		c.lab.must(os.WriteFile(path, []byte(text), 0o644), "make root of %s", c.Name)
	}
	cmd := exec.Command("/bin/busybox", "sleep", "1000000000")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Unshareflags: syscall.CLONE_NEWNS}
	p = c.StartCommand(cmd)
	p.quiet = true
	return p, root
}

// SetLink sets a link up or down.
func (n *NS) SetLink(ifname string, up bool) {
	n.lab.tb.Helper()
	n.must(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	}, "set %s up=%v", ifname, up)
}

// DeleteLink deletes a link.
func (n *NS) DeleteLink(ifname string) {
	n.lab.tb.Helper()
	n.must(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}, "delete %s", ifname)
}

// AddAddr gives a link an address, as "10.80.0.5/16".
func (n *NS) AddAddr(ifname, prefix string) {
	n.lab.tb.Helper()
	n.must(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	}, "add %s to %s", prefix, ifname)
}

// DelAddr takes an address off a link.
func (n *NS) DelAddr(ifname, prefix string) {
	n.lab.tb.Helper()
	n.must(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, addr)
	}, "take %s off %s", prefix, ifname)
}
