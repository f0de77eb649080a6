// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mvdhcp/provision"
)

// host looks at the settings of the host's network that children feel.
func (x *examination) host() {
	x.macvlan()
	x.bridgeFilter()
	x.reversePath()
	x.arp()
}

// macvlan makes a pair of links in a namespace of its own, to learn whether the
// kernel has macvlan without touching the parent.
func (x *examination) macvlan() {
	err := tryMacvlan()
	if err == nil {
		x.ok("macvlan", "the kernel has macvlan")
		return
	}
	x.add(Finding{"macvlan", Problem, fmt.Sprintf("no macvlan link can be made: %v", err), "children are macvlan links", "modprobe macvlan"})
}

func tryMacvlan() error {
	ns, err := provision.NewNamespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lower"}, PeerName: "peer"}); err != nil {
			return nil // no veth: nothing is known of macvlan
		}
		lower, err := netlink.LinkByName("lower")
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "child", ParentIndex: lower.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	})
}

// bridgeFilter: frames that cross a bridge go through the host's iptables when
// bridge-nf-call-iptables is set (net/bridge/br_netfilter_hooks.c), where Docker
// drops what it forwards by default.
func (x *examination) bridgeFilter() {
	const check, file = "bridge-nf", "/proc/sys/net/bridge/bridge-nf-call-iptables"
	on, err := number(file)
	bridge := lowerBridge(x.Parent)
	switch {
	case err != nil || on == 0:
		x.ok(check, "frames on bridges bypass the host's packet filter")
	case bridge == "":
		x.ok(check, "br_netfilter is on, and %s is on no bridge of this host", x.Parent)
	default:
		x.add(Finding{check, Warning, fmt.Sprintf("frames of children cross the bridge %s, and with it the host's packet filter", bridge),
			"a FORWARD policy of DROP, as Docker sets it, can drop their DHCP and their traffic", "sysctl -w net.bridge.bridge-nf-call-iptables=0"})
	}
}

// lowerBridge names the bridge that the parent is, or is a VLAN of; "": none.
func lowerBridge(name string) string {
	link, err := netlink.LinkByName(name)
	for range 8 { // links can be stacked that deep
		if err != nil {
			return ""
		}
		if link.Type() == "bridge" {
			return link.Attrs().Name
		}
		if link.Attrs().ParentIndex == 0 {
			return ""
		}
		link, err = netlink.LinkByIndex(link.Attrs().ParentIndex)
	}
	return ""
}

// reversePath: a namespace takes over the host's settings when it is made
// (net/ipv4/devinet.c, devinet_init_net), so that strict filtering here is strict
// filtering in containers.
func (x *examination) reversePath() {
	const check = "rp_filter"
	all, err1 := number("/proc/sys/net/ipv4/conf/all/rp_filter")
	def, err2 := number("/proc/sys/net/ipv4/conf/default/rp_filter")
	switch {
	case err1 != nil || err2 != nil:
		x.ok(check, "no rp_filter on this kernel")
	case max(all, def) == 1:
		x.add(Finding{check, Note, fmt.Sprintf("rp_filter is strict (all %d, default %d), also in new namespaces", all, def),
			"a container with several children drops what comes in by another one than its routes say", "sysctl -w net.ipv4.conf.all.rp_filter=2"})
	default:
		x.ok(check, "rp_filter all %d, default %d", all, def)
	}
}

// arp: a host whose links answer for each other's addresses (arp_ignore 0) with
// several links on one LAN gives its neighbours the wrong MAC.
func (x *examination) arp() {
	const check = "arp"
	same := sameLAN(x.Parent)
	ignore, err := number("/proc/sys/net/ipv4/conf/all/arp_ignore")
	if err != nil || ignore > 0 || len(same) == 0 {
		x.ok(check, "the host's addresses are answered for by their own links")
		return
	}
	x.add(Finding{check, Note, fmt.Sprintf("%s and %s are on one subnet, and each answers ARP for the other (arp_ignore 0)", x.Parent, strings.Join(same, ", ")),
		"neighbours may learn the wrong MAC for the host's addresses", "sysctl -w net.ipv4.conf.all.arp_ignore=1"})
}

// sameLAN names the host's other links with an address in a subnet of the
// parent's; a host link has none, being a /32.
func sameLAN(name string) (same []string) {
	parent, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	addrs, _ := netlink.AddrList(nil, netlink.FAMILY_V4)
	for _, a := range addrs {
		for _, b := range addrs {
			ones, _ := b.Mask.Size()
			if a.LinkIndex == parent.Attrs().Index && b.LinkIndex != a.LinkIndex && ones < 32 && a.IPNet.Contains(b.IP) {
				if l, err := netlink.LinkByIndex(b.LinkIndex); err == nil {
					same = append(same, l.Attrs().Name)
				}
			}
		}
	}
	return same
}

// dhcpPort is in hexadecimal what the kernel's table of sockets writes.
const dhcpPort = ":0043"

// localServer names the process that serves DHCP in the host's own namespace;
// "": none does.
func localServer() string {
	f, err := os.Open("/proc/thread-self/net/udp")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], dhcpPort) {
			return holderOf(fields[9])
		}
	}
	return ""
}

// holderOf names the process that has the socket with this inode.
func holderOf(inode string) string {
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		fds, _ := os.ReadDir(dir)
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == "socket:["+inode+"]" {
				pid := filepath.Base(filepath.Dir(dir))
				name, _ := os.ReadFile("/proc/" + pid + "/comm")
				return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
			}
		}
	}
	return "a process"
}

// number reads a setting of the kernel.
func number(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// free is how many bytes are left on the file system of a path, and whether that
// is one in memory.
func free(path string) (bytes uint64, inMemory bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, false, err
	}
	return st.Bavail * uint64(st.Bsize), st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, nil
}
