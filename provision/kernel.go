// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Kernel does what is done to parents, children and namespaces. It is safe for
// concurrent use: one socket in the host namespace is shared, one request at a
// time; work inside a namespace has a socket of its own, closed before the call
// returns. It holds two descriptors in all, and none in any namespace of a child.
type Kernel struct {
	host  *NS
	sysfs string // "": the mounted sysfs doesn't show the host namespace
	// addressOwner: the kernel keeps IFA_PROTO (since 5.18).
	addressOwner bool

	mu   sync.Mutex
	conn *conn // in the host namespace

	deleting errgroup.Group // see deleteAhead
}

// NewKernel works on the parents of the process's own network namespace.
func NewKernel() (*Kernel, error) {
	own, err := home()
	if err != nil {
		return nil, err
	}
	return NewKernelIn(own)
}

// NewKernelIn works on the parents of namespace host, which may be closed
// afterwards.
func NewKernelIn(host *NS) (*Kernel, error) {
	held, err := host.dup()
	if err != nil {
		return nil, err
	}
	c, err := held.dial()
	if err != nil {
		held.Close()
		return nil, err
	}
	k := &Kernel{host: held, conn: c, addressOwner: kernelAtLeast(5, 18)}
	k.deleting.SetLimit(deletesAhead)
	if held.IsHost() {
		k.sysfs = "/sys"
	}
	return k, nil
}

// Close ends the Kernel; calls that run meanwhile fail.
func (k *Kernel) Close() error {
	_ = k.deleting.Wait() // its functions don't fail
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conn.close()
	k.host.Close()
	return nil
}

// HostHas tells whether the host namespace itself holds addr, and on which
// link. A child can't see that by ARP: it and its parent never hear each other.
func (k *Kernel) HostHas(addr netip.Addr) (ifname string, ok bool, err error) {
	err = k.onHost(func(c *conn) error {
		all, err := c.addresses(0)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.prefix.Addr() != addr.Unmap() {
				continue
			}
			ok = true
			l, err := c.linkByIndex(own, a.index)
			if err != nil && !errors.Is(err, errNoLink) {
				return err
			}
			ifname = l.name
			return nil
		}
		return nil
	})
	return ifname, ok, err
}

// HasAddress tells whether the child holds exactly this address and length.
func (k *Kernel) HasAddress(ns *NS, child Child, prefix netip.Prefix) (bool, error) {
	found := false
	err := onChild(ns, child, func(c *conn, _ link) error {
		all, err := c.addresses(child.Index)
		for _, a := range all {
			found = found || a.prefix == prefix
		}
		return err
	})
	return found, err
}

// Neighbour is the MAC address of the next hop from the child toward ip, as the
// kernel knows it at this moment; nil when it knows none.
func (k *Kernel) Neighbour(ns *NS, child Child, ip netip.Addr) (mac net.HardwareAddr, err error) {
	err = onChild(ns, child, func(c *conn, _ link) error {
		hop, err := c.nextHop(child.Index, ip)
		if err != nil || !hop.IsValid() {
			return err
		}
		mac, err = c.neighbour(child.Index, hop)
		return err
	})
	return mac, err
}

// FreeName returns the first ethN that neither the namespace nor taken has.
func (k *Kernel) FreeName(ns *NS, taken func(string) bool) (string, error) {
	const most = 1000
	var free string
	err := inNS(ns, func(c *conn) error {
		for n := range most {
			name := fmt.Sprintf("eth%d", n)
			if taken(name) {
				continue
			}
			_, err := c.linkByName(own, name)
			if errors.Is(err, errNoLink) {
				free = name
				return nil
			}
			if err != nil {
				return err
			}
		}
		return faultf(ErrBusy, "namespace %s: eth0 to eth%d are all taken", ns.id.Path, most-1)
	})
	return free, err
}

// Names lists the names of all links in the namespace.
func (k *Kernel) Names(ns *NS) ([]string, error) {
	var names []string
	err := inNS(ns, func(c *conn) error {
		all, err := c.links(own)
		for _, l := range all {
			names = append(names, l.name)
		}
		return err
	})
	return names, err
}

// Host is the host namespace, open as long as k is; not to be closed.
func (k *Kernel) Host() *NS { return k.host }

// onHost runs fn with the shared socket; fn asks the kernel and does nothing
// that waits.
func (k *Kernel) onHost(fn func(*conn) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fn(k.conn)
}

// inNS runs fn with a socket in the namespace: the one of Stay, or one that is
// closed afterwards. fn does not call it again for the same namespace.
func inNS(ns *NS, fn func(*conn) error) error {
	ns.mu.Lock()
	if ns.stay != nil {
		defer ns.mu.Unlock()
		return fn(ns.stay)
	}
	ns.mu.Unlock()
	c, err := ns.dial()
	if err != nil {
		return err
	}
	defer c.close()
	return fn(c)
}

// onChild runs fn in the child's namespace when the child is there: same index,
// same MAC, a macvlan. Else the error is ErrGone.
func onChild(ns *NS, child Child, fn func(*conn, link) error) error {
	return inNS(ns, func(c *conn) error {
		l, err := c.child(own, child)
		if err != nil {
			return err
		}
		return fn(c, l)
	})
}

// kernelAtLeast compares the running kernel's release (uname -r).
func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var ma, mi int
	if _, err := fmt.Sscanf(text(u.Release[:]), "%d.%d", &ma, &mi); err != nil {
		return false
	}
	return ma > major || ma == major && mi >= minor
}

// nextHop asks for the route to ip out of this link; the zero Addr: none.
func (c *conn) nextHop(index int, ip netip.Addr) (hop netip.Addr, err error) {
	h := &nl.RtMsg{}
	h.Family, h.Dst_len = unix.AF_INET, 32
	req := request(unix.RTM_GETROUTE, 0, h, addrAttr(unix.RTA_DST, ip), numberAttr(unix.RTA_OIF, index))
	err = c.do(req, func(data []byte) {
		if r, ok := parseRoute(data); ok && r.index == index && r.typ == unix.RTN_UNICAST {
			if hop = r.via; !hop.IsValid() {
				hop = ip
			}
		}
	})
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up the route to %s: %w", ip, err)
	}
	return hop, nil
}

// neighbour reads one entry of the neighbour table.
func (c *conn) neighbour(index int, ip netip.Addr) (mac net.HardwareAddr, err error) {
	const usable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	h := &neighbourMsg{}
	h.Family, h.Ifindex = unix.AF_INET, int32(index)
	err = c.do(request(unix.RTM_GETNEIGH, 0, h, addrAttr(unix.NDA_DST, ip)), func(data []byte) {
		if len(data) < unix.SizeofNdMsg || unsigned(data[8:10])&usable == 0 {
			return
		}
		for typ, value := range attributes(data[unix.SizeofNdMsg:]) {
			if typ == unix.NDA_LLADDR && len(value) == 6 {
				mac = append(net.HardwareAddr(nil), value...)
			}
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up neighbour %s: %w", ip, err)
	}
	return mac, nil
}
