// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

const patience = 10 * time.Second

func (b *bench) keeperAsync(ctx context.Context, c *lab.Container) (time.Duration, error) {
	return b.throughAPI(ctx, c, "async")
}

// throughAPI has the keeper attach, without a new process.
func (b *bench) throughAPI(ctx context.Context, c *lab.Container, conflictCheck string) (time.Duration, error) {
	start := time.Now()
	_, err := b.client.Attach(ctx, api.AttachRequest{
		Target: c.Target(), Parent: lab.Uplink, ConflictCheck: conflictCheck, Timeout: patience,
	}, nil)
	return time.Since(start), err
}

// command attaches as a person does.
func (b *bench) command(flags ...string) func(context.Context, *lab.Container) (time.Duration, error) {
	return func(_ context.Context, c *lab.Container) (time.Duration, error) {
		r := b.keeper.Run(append([]string{"attach", c.Target(), "--parent", lab.Uplink}, flags...)...)
		if r.Status != 0 {
			return 0, fmt.Errorf("%v", r)
		}
		return r.Took, nil
	}
}

func (b *bench) detach(ctx context.Context, c *lab.Container) error {
	_, err := b.client.Detach(ctx, api.DetachRequest{Target: c.Target()})
	return err
}

// floor does what an attach can't do without: a child made in the namespace,
// up, DISCOVER to ACK on a packet socket, address and default route.
func (b *bench) floor(_ context.Context, c *lab.Container) (took time.Duration, err error) {
	err = b.host.Do(func() error {
		var client *lab.Bare
		defer func() {
			if client != nil {
				client.Close()
			}
		}()
		start := time.Now()
		fd, err := unix.Open(c.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		parent, err := netlink.LinkByName(lab.Uplink)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.Namespace = "eth0", parent.Attrs().Index, netlink.NsFd(fd)
		if err := netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}); err != nil {
			return err
		}
		return c.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			if client, err = lab.OpenBare(link.Attrs().Index, link.Attrs().HardwareAddr); err != nil {
				return err
			}
			ack, err := client.DORA(patience)
			if err != nil {
				return err
			}
			if err := configure(link, ack); err != nil {
				return err
			}
			took = time.Since(start)
			return nil
		})
	})
	return took, err
}

func configure(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	seconds := int(ack.IPAddressLeaseTime(0) / time.Second)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: ack.SubnetMask()}, ValidLft: seconds, PreferedLft: seconds}
	if err := netlink.AddrAdd(link, address); err != nil {
		return fmt.Errorf("add the address: %w", err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: ack.Router()[0]}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add the route: %w", err)
	}
	return nil
}

// udhcpc is the way of a shell script. Its own script would write the host's
// resolv.conf, so it runs with none that does anything.
func (b *bench) udhcpc(_ context.Context, c *lab.Container) (time.Duration, error) {
	const script = `ip link add eth0 link ` + lab.Uplink + ` netns "$1" type macvlan mode bridge &&
		ip -n "$1" link set eth0 up &&
		ip netns exec "$1" busybox udhcpc -i eth0 -f -q -n -s /bin/true`
	start := time.Now()
	p := b.host.StartCommand(exec.Command("/bin/sh", "-c", script, "sh", c.Name))
	status := p.Exit(time.Minute)
	took := time.Since(start)
	if status != 0 {
		return 0, fmt.Errorf("status %d: %s", status, p.Output())
	}
	return took, nil
}

// dropChild gives back the lease of a child that mvdhcp knows nothing of, and
// deletes it.
func (b *bench) dropChild(_ context.Context, c *lab.Container) error {
	link, ok := c.Link("eth0")
	if !ok {
		return fmt.Errorf("%s has no eth0", c.Name)
	}
	if lease, ok := b.server.Lease(link.MAC.String()); ok {
		if err := release(c, link, b.server.Addr, lease); err != nil {
			return err
		}
	}
	c.DeleteLink("eth0")
	return nil
}

func release(c *lab.Container, link lab.Link, server netip.Addr, lease lab.ServerLease) error {
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease), dhcpv4.WithHwAddr(link.MAC),
		dhcpv4.WithClientIP(lease.Addr.AsSlice()), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())))
	if err != nil {
		return err
	}
	if lease.ClientID != "" {
		m.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, link.MAC...)))
	}
	return c.Do(func() error {
		client, err := lab.OpenBare(link.Index, link.MAC)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Send(m, lease.Addr)
	})
}
