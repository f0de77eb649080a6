// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"mvdhcp/dhcpclient"
)

// lan is a host and a DHCP server, each in a namespace without a name, joined by
// a veth pair. All of it ends with the test's process at the latest.
type lan struct {
	t            *testing.T
	server, host netns.NsHandle
	parent       netlink.Link // in host
	leases       string       // dnsmasq's lease file
	log          string
}

var (
	serverIP = netip.MustParseAddr("10.77.0.1")
	subnet   = netip.MustParsePrefix("10.77.0.0/24")
)

func newLAN(t *testing.T) *lan {
	t.Helper()
	dir := t.TempDir()
	l := &lan{t: t, server: newNamespace(t), host: newNamespace(t), leases: filepath.Join(dir, "leases"), log: filepath.Join(dir, "log")}
	in(t, l.host, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "up0"},
			PeerName:      "srv0",
			PeerNamespace: netlink.NsFd(int(l.server)),
		})
	})
	l.up(l.server, "srv0", netip.PrefixFrom(serverIP, 24))
	l.parent = l.up(l.host, "up0", netip.Prefix{})
	return l
}

// newNamespace makes a network namespace that lives as long as it is used.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("new network namespace (root and CONFIG_NET_NS are needed): %v", err)
	}
	if err := netns.Set(old); err != nil {
		panic(err) // the thread can't be used by anybody else now
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// in runs f on a thread in ns.
func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	err = f()
	if err := netns.Set(old); err != nil {
		panic(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// up brings a link up, with an address where there is one, and returns it.
func (l *lan) up(ns netns.NsHandle, name string, addr netip.Prefix) netlink.Link {
	l.t.Helper()
	var link netlink.Link
	in(l.t, ns, func() (err error) {
		if link, err = netlink.LinkByName(name); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
		if addr.IsValid() {
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
				return fmt.Errorf("address %v on %s: %w", addr, name, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("link %s up: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
		return err
	})
	return link
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// child is a macvlan of the parent in a namespace of its own.
type child struct {
	lan *lan
	ns  netns.NsHandle
	netlink.Link
}

func (l *lan) child(mac string) *child {
	l.t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		l.t.Fatal(err)
	}
	c := &child{lan: l, ns: newNamespace(l.t)}
	in(l.t, l.host, func() error {
		return netlink.LinkAdd(&netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", ParentIndex: l.parent.Attrs().Index, HardwareAddr: hw, Namespace: netlink.NsFd(int(c.ns))},
			Mode:      netlink.MACVLAN_MODE_BRIDGE,
		})
	})
	c.Link = l.up(c.ns, "eth0", netip.Prefix{})
	return c
}

func (c *child) mac() net.HardwareAddr { return c.Attrs().HardwareAddr }

func (c *child) packet(o PacketOptions) *PacketConn {
	c.lan.t.Helper()
	o.MAC = c.mac()
	var conn *PacketConn
	in(c.lan.t, c.ns, func() (err error) {
		conn, err = ListenPacket(c.Attrs().Index, o)
		return err
	})
	c.lan.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *child) arp() *ARPConn {
	c.lan.t.Helper()
	var conn *ARPConn
	in(c.lan.t, c.ns, func() (err error) {
		conn, err = ListenARP(c.Attrs().Index, c.mac())
		return err
	})
	c.lan.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *child) udp(source netip.Addr) *UDPConn {
	c.lan.t.Helper()
	var conn *UDPConn
	in(c.lan.t, c.ns, func() (err error) {
		conn, err = ListenUDP("eth0", source)
		return err
	})
	c.lan.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *child) client(conn dhcpclient.Conn) *dhcpclient.Client {
	return &dhcpclient.Client{
		Params: dhcpclient.Params{MAC: c.mac(), ClientID: append([]byte{1}, c.mac()...), Hostname: "web"},
		Conn:   conn,
	}
}

// acquire is a whole DORA from the child.
func (c *child) acquire() dhcpclient.Binding {
	c.lan.t.Helper()
	b, err := c.client(c.packet(PacketOptions{})).Acquire(c.lan.ctx())
	if err != nil {
		c.lan.t.Fatalf("Acquire: %v\n%s", err, c.lan.journal())
	}
	return b
}

// ctx ends when something is badly wrong.
func (l *lan) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	l.t.Cleanup(cancel)
	return ctx
}

// dnsmasq runs in the server's namespace until the test ends or stop is called.
func (l *lan) dnsmasq(args ...string) (stop func()) {
	l.t.Helper()
	log, err := os.Create(l.log)
	if err != nil {
		l.t.Fatal(err)
	}
	args = append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--no-ping",
		"--user=root", "--group=root", "--interface=srv0", "--bind-interfaces", "--dhcp-authoritative", "--log-dhcp", "--log-facility=-",
		"--dhcp-leasefile=" + l.leases, "--dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,1h",
	}, args...)
	cmd := exec.Command("dnsmasq", args...)
	cmd.Stdout, cmd.Stderr = log, log
	// The kernel forgets the signal of a process that changes its user or group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in(l.t, l.server, cmd.Start)
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	}
	l.t.Cleanup(stop)
	l.await("dnsmasq is ready", func() bool { return strings.Contains(l.journal(), "DHCP, ") })
	return stop
}

func (l *lan) journal() string {
	b, _ := os.ReadFile(l.log)
	return string(b)
}

// leased reports whether dnsmasq's lease file holds addr for mac.
func (l *lan) leased(mac net.HardwareAddr, addr netip.Addr) bool {
	b, err := os.ReadFile(l.leases)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[1] == mac.String() && f[2] == addr.String() {
			return true
		}
	}
	return false
}

// await polls a process or the kernel for something that has no event.
func (l *lan) await(what string, ok func() bool) {
	l.t.Helper()
	for ctx := l.ctx(); !ok(); {
		select {
		case <-ctx.Done():
			l.t.Fatalf("waited in vain: %s\n%s", what, l.journal())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
