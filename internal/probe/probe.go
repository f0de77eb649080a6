// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/dhcpclient/wire"
	"mvdhcp/provision"
)

// Question is what to ask, and how.
type Question struct {
	Kernel *provision.Kernel
	Log    *slog.Logger
	Parent string
	// MAC to ask with from a child; nil: a random one.
	MAC         net.HardwareAddr
	ClientID    []byte // nil: 01 and the MAC
	VendorClass string
	UserClass   string
	Mode        provision.Mode // of the child; empty: bridge
	// Allow and Deny are servers whose offers count, or don't.
	Allow, Deny []netip.Addr
	// First ends the question with the first offer.
	First    bool
	Window   time.Duration // how long answers are collected
	Patience time.Duration // how long the first one is waited for beyond that
	Progress func(string)  // may be nil
}

// Patience is enough for a server that pings an address before it offers it:
// dnsmasq does so for 3 s.
const Patience = 3 * time.Second

// RandomMAC is a MAC for one question: locally administered and unicast.
func RandomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails: crypto/rand.Read
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// FromChild asks from a child of the parent in a namespace of its own, which are
// both gone when it returns, as is a VLAN link that was made for it. The offers
// are empty when nobody answered.
func FromChild(ctx context.Context, q Question) (offers []dhcpclient.Offer, parent provision.Parent, err error) {
	if q.MAC == nil {
		q.MAC = RandomMAC()
	}
	if q.Mode == "" {
		q.Mode = provision.Bridge
	}
	parent, made, err := q.Kernel.EnsureParent(q.Parent)
	if err != nil {
		return nil, parent, err
	}
	if made {
		defer func() { err = errors.Join(err, q.Kernel.RemoveParent(q.Parent)) }()
	}
	ns, err := provision.NewNamespace()
	if err != nil {
		return nil, parent, fmt.Errorf("failed to make a namespace for the probe: %w", err)
	}
	defer ns.Close()
	child, err := q.Kernel.CreateChild(ctx, ns, provision.ChildSpec{Parent: parent, Name: "eth0", MAC: q.MAC, Mode: q.Mode, Alias: "mvdhcp probe"})
	if err != nil {
		return nil, parent, fmt.Errorf("failed to make a child on %s for the probe: %w", q.Parent, err)
	}
	defer func() { err = errors.Join(err, q.Kernel.DeleteChild(ns, child)) }()
	offers, err = q.ask(ctx, ns, child.Index)
	return offers, parent, err
}

// FromParent asks from the parent itself, with its own MAC.
func FromParent(ctx context.Context, q Question) ([]dhcpclient.Offer, error) {
	parent, err := q.Kernel.Parent(q.Parent)
	if err != nil {
		return nil, err
	}
	q.MAC = parent.MAC
	return q.ask(ctx, q.Kernel.Host(), parent.Index)
}

// ask sends DISCOVER on a link of the namespace and collects the offers.
func (q Question) ask(ctx context.Context, ns *provision.NS, index int) ([]dhcpclient.Offer, error) {
	var conn dhcpclient.Conn
	if err := ns.Do(func() (err error) {
		conn, err = wire.ListenPacket(index, wire.PacketOptions{MAC: q.MAC})
		return err
	}); err != nil {
		return nil, err
	}
	defer conn.Close()
	if q.ClientID == nil {
		q.ClientID = append([]byte{1}, q.MAC...)
	}
	if q.Progress != nil {
		q.Progress(fmt.Sprintf("DISCOVER sent on %s, collecting offers for %v", q.Parent, q.Window))
	}
	window, cancel := context.WithTimeout(ctx, q.Window)
	defer cancel()
	c := dhcpclient.Client{Conn: conn, Log: q.Log, Params: dhcpclient.Params{
		MAC: q.MAC, ClientID: q.ClientID, VendorClass: q.VendorClass, UserClass: q.UserClass, AllowServers: q.Allow, DenyServers: q.Deny,
	}}
	var offers []dhcpclient.Offer
	var err error
	if !q.First {
		offers, err = c.Discover(window)
		if errors.Is(err, dhcpclient.ErrNoAnswer) && q.Patience > 0 && ctx.Err() == nil {
			if q.Progress != nil {
				q.Progress(fmt.Sprintf("no offer yet on %s, waiting %v more for one", q.Parent, q.Patience))
			}
			window, cancel = context.WithTimeout(ctx, q.Patience)
			defer cancel()
			q.First = true
		}
	}
	if q.First {
		var o dhcpclient.Offer
		if o, err = c.FirstOffer(window); err == nil {
			offers = append(offers, o)
		}
	}
	if errors.Is(err, dhcpclient.ErrNoAnswer) {
		err = nil
	}
	return offers, err
}
