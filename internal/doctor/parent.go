// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"mvdhcp/provision"
)

// parent looks at the parent and its children, and reports whether children can
// be made on it.
func (x *examination) parent() bool {
	const check = "parent"
	p, made, err := x.Kernel.EnsureParent(x.Parent)
	switch {
	case errors.Is(err, provision.ErrUnsupported):
		x.add(Finding{check, Problem, err.Error(), "a VLAN is a link that the kernel's module 8021q makes", "modprobe 8021q"})
		return false
	case errors.Is(err, provision.ErrGone):
		x.add(Finding{check, Problem, err.Error(), "children need a link to hang on", "ip link"})
		return false
	case err != nil:
		x.add(Finding{check, Problem, err.Error(), "it can't carry macvlan children", "ip -d link show"})
		return false
	}
	if made {
		defer x.Kernel.RemoveParent(x.Parent) //nolint:errcheck // made for this look; it stays only when somebody uses it by now
		x.add(Finding{check, Note, x.Parent + " is not there: attach makes it", "a VLAN link is made with its first lease and removed with its last", ""})
	}
	link, err := netlink.LinkByIndex(p.Index)
	if err != nil {
		x.add(Finding{check, Problem, fmt.Sprintf("parent %s can't be read: %v", p.Name, err), "", ""})
		return false
	}
	what := fmt.Sprintf("%s: %s, MTU %d", p.Name, kindOf(link), p.MTU)
	if !p.Carrier {
		x.add(Finding{check, Problem, what + ", no carrier", "nothing passes: no lease can be had or renewed", carrierFix(p.Name)})
		return false
	}
	x.ok(check, "%s, up, with carrier", what)
	x.promiscuity(link)
	x.children(p)
	return true
}

func carrierFix(name string) string {
	return "check cable and switch port: ethtool " + name
}

// kindOf says what sort of link it is.
func kindOf(link netlink.Link) string {
	switch l := link.(type) {
	case *netlink.Vlan:
		if lower, err := netlink.LinkByIndex(l.ParentIndex); err == nil {
			return fmt.Sprintf("VLAN %d on %s", l.VlanId, lower.Attrs().Name)
		}
		return fmt.Sprintf("VLAN %d", l.VlanId)
	case *netlink.Device:
		return "network card"
	}
	return link.Type()
}

// promiscuity: a card with too few filters for unicast addresses is put into
// promiscuous mode by its driver, which shows in its flags, not in its count.
func (x *examination) promiscuity(link netlink.Link) {
	if n := link.Attrs().Promisc; n > 0 {
		x.add(Finding{"promiscuity", Note, fmt.Sprintf("%s is in promiscuous mode (asked for %s)", link.Attrs().Name, plural(n, "time", "times")),
			"each frame on the wire reaches the host; children work with or without it", "ip -d link show " + link.Attrs().Name})
		return
	}
	x.ok("promiscuity", "%s is not promiscuous: its filter takes the children's MACs", link.Attrs().Name)
}

// Every broadcast is copied for each child through one queue of the parent
// (drivers/net/macvlan.c, bc_queue), and each child's own broadcast through the
// backlog of one CPU (net/core/dev.c, netdev_max_backlog).
const defaultQueue = 1000

// children counts the parent's children and compares them with the queues that
// their broadcasts go through.
func (x *examination) children(p provision.Parent) {
	n, queue := x.count(p)
	backlog, err := number("/proc/sys/net/core/netdev_max_backlog")
	if err != nil {
		backlog = defaultQueue
	}
	x.add(crowding(p.Name, n, queue, backlog))
}

// crowding compares the number of a parent's children with what the queues hold.
func crowding(parent string, n, queue, backlog int) Finding {
	f := Finding{Check: "children", Level: OK, What: fmt.Sprintf("%s on %s, room for broadcasts: bc_queue_len %d, netdev_max_backlog %d", plural(n, "child", "children"), parent, queue, backlog)}
	raise := fmt.Sprintf("sysctl -w net.core.netdev_max_backlog=%d", 4*n)
	switch {
	case n >= backlog:
		f.Level, f.Fix = Problem, raise
		f.Why = "a broadcast of one child is copied to all others at once, and what goes beyond the backlog is dropped: DHCP and ARP fail"
	case n >= queue:
		f.Level, f.Fix = Problem, fmt.Sprintf("ip link set dev CHILD type macvlan bcqueuelen %d # on one child, in its namespace", 4*n)
		f.Why = "broadcasts that come in faster than they are copied to all children are dropped: DHCP and ARP fail now and then"
	case 2*n >= min(backlog, queue):
		f.Level, f.Fix = Warning, raise
		f.Why = "each broadcast is copied for every child; bursts come near what the queues hold"
	}
	return f
}

// count finds the children of the parent in all namespaces, and the longest
// broadcast queue that one of them asks for, which is the parent's.
func (x *examination) count(p provision.Parent) (n, queue int) {
	all, err := provision.AllNamespaces()
	if err != nil {
		all = nil
	}
	if own, err := provision.Host(); err == nil {
		all = append(all, own)
	}
	for _, id := range all {
		ns, err := id.Open()
		if err != nil {
			continue
		}
		found, err := x.Kernel.Children(ns, "")
		if err == nil {
			found = slices.DeleteFunc(found, func(c provision.FoundChild) bool { return c.Parent != p.Index })
			n += len(found)
			if len(found) > 0 && queue == 0 {
				queue = queueOf(ns, found[0].Index)
			}
		}
		ns.Close()
	}
	if queue == 0 {
		queue = defaultQueue
	}
	return n, queue
}

// queueOf is the length of the broadcast queue in use at a child's parent, in
// frames; 0: the kernel doesn't say.
func queueOf(ns *provision.NS, index int) (length int) {
	_ = ns.Do(func() error {
		link, err := netlink.LinkByIndex(index)
		if m, ok := link.(*netlink.Macvlan); err == nil && ok {
			length = int(m.UsedBCQueueLen)
		}
		return nil
	})
	return length
}
