// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// How long CreateChild waits for a MAC that is still in use: by a child in a
// namespace that is alive, and by one in a namespace being torn down.
const (
	macWaitAlive = 250 * time.Millisecond
	macWaitDying = 3 * time.Second
)

// CreateChild makes a macvlan link straight in the namespace, up and marked
// with the alias. On failure, and when ctx ends, nothing of it is left.
//
// A MAC that a namespace under teardown still holds is waited for, up to 3 s.
// ErrBusy: the name or the MAC is taken, ErrGone: the parent isn't there,
// ErrUnsupported: the kernel has no macvlan.
func (k *Kernel) CreateChild(ctx context.Context, ns *NS, spec ChildSpec) (Child, error) {
	if err := spec.check(); err != nil {
		return Child{}, err
	}
	name, err := k.createFree(ctx, ns, spec)
	if err != nil {
		return Child{}, err
	}
	child, err := k.adopt(ns, name, spec)
	if err != nil {
		return Child{}, err
	}
	if err := ctx.Err(); err != nil {
		_ = k.DeleteChild(ns, child)
		return Child{}, fmt.Errorf("create %s in %s: %w", name, ns.id.Path, err)
	}
	return child, nil
}

func (s *ChildSpec) check() error {
	if s.Name != "" {
		if err := checkName(s.Name); err != nil {
			return err
		}
	}
	switch {
	case len(s.MAC) != 6:
		return faultf(ErrInvalid, "MAC %q: a MAC address has 6 bytes", s.MAC)
	case s.MAC[0]&1 != 0:
		return faultf(ErrInvalid, "MAC %s is a multicast address: a link needs one whose first byte is even", s.MAC)
	case bytes.Equal(s.MAC, make([]byte, 6)):
		return faultf(ErrInvalid, "MAC %s: all zero", s.MAC)
	case bytes.Equal(s.MAC, s.Parent.MAC):
		return faultf(ErrBusy, "MAC %s is that of %s itself: choose another", s.MAC, s.Parent.Name)
	case modes[s.Mode] == 0:
		return faultf(ErrInvalid, "mode %q: choose bridge, private or vepa", s.Mode)
	case len(s.Alias) > 255:
		return faultf(ErrInvalid, "alias of %d bytes: a link has room for 255", len(s.Alias))
	}
	return nil
}

// createFree creates under the name asked for, or the first ethN that is free,
// and returns the name.
func (k *Kernel) createFree(ctx context.Context, ns *NS, spec ChildSpec) (string, error) {
	if spec.Name != "" {
		return spec.Name, k.createNamed(ctx, ns, spec, spec.Name)
	}
	const most = 1000
	for n := range most {
		name := fmt.Sprintf("eth%d", n)
		err := k.createNamed(ctx, ns, spec, name)
		if !errors.Is(err, errNameTaken) {
			return name, err
		}
	}
	return "", faultf(ErrBusy, "namespace %s: eth0 to eth%d are all taken", ns.id.Path, most-1)
}

var errNameTaken = fmt.Errorf("name taken: %w", ErrBusy)

// createNamed creates under this name, and waits for the MAC when it must.
func (k *Kernel) createNamed(ctx context.Context, ns *NS, spec ChildSpec, name string) error {
	start, pause := time.Now(), 2*time.Millisecond
	searched := false
	for {
		err := k.createOnce(ns, spec, name)
		if !errors.Is(err, unix.EADDRINUSE) {
			return spec.explain(err, ns, name)
		}
		waited := time.Since(start)
		if waited >= macWaitAlive && !searched && ctx.Err() == nil {
			searched = true
			if holder := k.holderOf(spec.MAC, spec.Parent.Index); holder != "" {
				return faultf(ErrBusy, "MAC %s is in use on %s by %s: detach that one first, or choose another MAC", spec.MAC, spec.Parent.Name, holder)
			}
		}
		if waited >= macWaitDying {
			return faultf(ErrBusy, "MAC %s is still in use on %s after %s: something holds the dead namespace of its last user open", spec.MAC, spec.Parent.Name, macWaitDying)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create %s in %s: waiting for MAC %s: %w", name, ns.id.Path, spec.MAC, ctx.Err())
		case <-time.After(pause):
		}
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// createOnce makes the link in one request: created in the namespace, named,
// with its MAC, and brought up. When bringing it up fails, the kernel takes it
// away again.
func (k *Kernel) createOnce(ns *NS, spec ChildSpec, name string) error {
	err := k.onHost(func(c *conn) error { return c.createMacvlan(ns.FD(), spec, name) })
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	taken := false
	if err := inNS(ns, func(c *conn) error {
		_, err := c.linkByName(own, name)
		taken = err == nil
		return nil
	}); err != nil {
		return err
	}
	if taken {
		return errNameTaken
	}
	// Before Linux 6.14 (net/core/rtnetlink.c) the name is looked for among the
	// host's links, where another link may well be called eth0.
	return k.createRenamed(ns, spec, name)
}

// createRenamed creates under a name that no link has, down, and then names the
// link and brings it up from inside.
func (k *Kernel) createRenamed(ns *NS, spec ChildSpec, name string) error {
	temporary := TemporaryName(spec.MAC)
	err := k.onHost(func(c *conn) error { return c.createDown(ns.FD(), spec, temporary) })
	if err != nil {
		return err
	}
	return inNS(ns, func(c *conn) error {
		l, err := c.linkByName(own, temporary)
		if err != nil {
			return err
		}
		err = c.setLink(l.index, false, stringAttr(unix.IFLA_IFNAME, name))
		if err == nil {
			err = c.setLink(l.index, true)
		}
		if err != nil {
			_ = c.deleteLink(own, l.index)
		}
		if errors.Is(err, unix.EEXIST) {
			return errNameTaken
		}
		return err
	})
}

// TemporaryName is what CreateChild calls a child before it has its own name, on
// kernels before Linux 6.14. A link that is found with it was never finished.
func TemporaryName(mac net.HardwareAddr) string { return fmt.Sprintf("mv%x", []byte(mac)) }

func (c *conn) createMacvlan(nsFD int, spec ChildSpec, name string) error {
	h := nl.NewIfInfomsg(unix.AF_UNSPEC)
	h.Flags, h.Change = unix.IFF_UP, unix.IFF_UP
	return c.newMacvlan(h, nsFD, spec, name)
}

func (c *conn) createDown(nsFD int, spec ChildSpec, name string) error {
	return c.newMacvlan(nl.NewIfInfomsg(unix.AF_UNSPEC), nsFD, spec, name)
}

// newMacvlan always asks for NLM_F_EXCL: without it, kernels before 6.14 would
// take a host link of the same name and move it.
func (c *conn) newMacvlan(h *nl.IfInfomsg, nsFD int, spec ChildSpec, name string) error {
	return c.do(request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, h,
		stringAttr(unix.IFLA_IFNAME, name),
		numberAttr(unix.IFLA_LINK, spec.Parent.Index),
		numberAttr(unix.IFLA_NET_NS_FD, nsFD),
		nl.NewRtAttr(unix.IFLA_ADDRESS, spec.MAC),
		macvlanInfo(modes[spec.Mode]),
	), nil)
}

// explain turns the kernel's refusal into a message for people.
func (s *ChildSpec) explain(err error, ns *NS, name string) error {
	parent := s.Parent.Name
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNameTaken):
		if s.Name == "" {
			return err
		}
		return faultf(ErrBusy, "%s is taken in namespace %s: give another interface name", name, ns.id.Path)
	case errors.Is(err, unix.EOPNOTSUPP):
		return faultf(ErrUnsupported, "this kernel has no macvlan: load the module (modprobe macvlan), or use a kernel that has it")
	case errors.Is(err, unix.ENODEV):
		return faultf(ErrGone, "parent %s is gone", parent)
	case errors.Is(err, unix.EBUSY):
		return faultf(ErrInvalid, "%s can't carry macvlan children: a bridge, bond, team or ipvlan uses it already; name that one as parent", parent)
	case errors.Is(err, unix.EINVAL) && s.Parent.Index != 0:
		return faultf(ErrInvalid, "%s can't carry macvlan children: %v; a macvlan in passthru mode on it rules out all others", parent, err)
	}
	return fmt.Errorf("create %s on %s in namespace %s: %w", name, parent, ns.id.Path, err)
}

// adopt reads the new link back, marks it, and gives its namespace an id.
func (k *Kernel) adopt(ns *NS, name string, spec ChildSpec) (Child, error) {
	child := Child{Name: name, MAC: spec.MAC, NSID: -1, Parent: spec.Parent.Index, Mode: spec.Mode}
	err := inNS(ns, func(c *conn) error {
		l, err := c.linkByName(own, name)
		if err != nil {
			return err
		}
		child.Index = l.index
		if !isChild(l, spec.MAC) {
			return faultf(ErrBusy, "another link took the name %s in namespace %s", name, ns.id.Path)
		}
		err = c.mark(l.index, spec.Alias)
		if err == nil {
			child.NSID, err = k.namespaceID(ns.FD())
		}
		if err != nil {
			_ = c.deleteLink(own, l.index)
		}
		return err
	})
	if err != nil {
		return Child{}, fmt.Errorf("set up %s in namespace %s: %w", name, ns.id.Path, err)
	}
	return child, nil
}

// checkName judges an interface name as the kernel does (net/core/dev.c,
// dev_valid_name).
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return faultf(ErrInvalid, "%q is no interface name", name)
	case len(name) > 15:
		return faultf(ErrInvalid, "interface name %q has %d bytes: the kernel takes at most 15", name, len(name))
	case strings.ContainsAny(name, "/: \t\n\v\f\r\x00") || strings.Contains(name, "\xa0"):
		return faultf(ErrInvalid, "interface name %q: a slash, colon, space or NUL can't be part of one", name)
	}
	return nil
}
