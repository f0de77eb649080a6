// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
)

// Hook decides what a server really answers. It gets a request and what the
// server would answer, which is nothing or one message, and returns the messages
// to send: the same, changed, more of them, or none. It may take its time; other
// requests are answered meanwhile.
type Hook func(req *dhcpv4.DHCPv4, replies []*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4

// Embedded is a DHCP server inside this process, in a namespace of its own. It
// needs no program, allows leases of seconds, and lies when it is told to.
type Embedded struct {
	*NS
	Addr netip.Addr

	lab  *Lab
	opts ServerOptions
	stop func() // nil when it doesn't serve

	mu       sync.Mutex
	serving  bool
	handling sync.WaitGroup // Add with mu held while serving
	hook     Hook
	leases   map[netip.Addr]*ServerLease
	bad      map[netip.Addr]bool // declined
}

// Embedded starts one. It does without the options Ping, NotAuthoritative and
// Extra.
func (l *Lab) Embedded(o ServerOptions) *Embedded {
	l.tb.Helper()
	o = o.withDefaults(l, "server")
	e := &Embedded{NS: l.NS(o.Name), Addr: o.Addr, lab: l, opts: o,
		leases: map[netip.Addr]*ServerLease{}, bad: map[netip.Addr]bool{}}
	o.LAN.plug(e.NS, ServerIf)
	e.AddAddr(ServerIf, netip.PrefixFrom(o.Addr, o.LAN.Subnet.Bits()).String())
	e.Start()
	l.onClose(e.Stop)
	return e
}

// Start serves, again after Stop.
func (e *Embedded) Start() {
	e.lab.tb.Helper()
	var srv *server4.Server
	e.must(func() (err error) {
		srv, err = server4.NewServer(ServerIf, nil, e.handle)
		return err
	}, "listen")
	var reader sync.WaitGroup
	reader.Go(func() { _ = srv.Serve() })
	e.mu.Lock()
	e.serving = true
	e.mu.Unlock()
	e.stop = func() {
		srv.Close()
		reader.Wait()
		e.mu.Lock()
		e.serving = false
		e.mu.Unlock()
		e.handling.Wait()
	}
}

// Stop closes the server's socket and waits for its hooks. Its leases stay.
func (e *Embedded) Stop() {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

// OnMessage has the hook called for each request from now on; nil is honesty.
func (e *Embedded) OnMessage(h Hook) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hook = h
}

// SetLease changes the lease time, T1 and T2 of what is granted from now on.
func (e *Embedded) SetLease(lease, t1, t2 time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opts.Lease, e.opts.T1, e.opts.T2 = lease, t1, t2
}

// Leases are the leases that are not over, by address.
func (e *Embedded) Leases() []ServerLease {
	e.mu.Lock()
	defer e.mu.Unlock()
	var leases []ServerLease
	for _, l := range e.leases {
		if l.Expiry.IsZero() || time.Now().Before(l.Expiry) {
			leases = append(leases, *l)
		}
	}
	slices.SortFunc(leases, func(a, b ServerLease) int { return a.Addr.Compare(b.Addr) })
	return leases
}

// Forget drops all leases.
func (e *Embedded) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.leases)
}

func (e *Embedded) handle(conn net.PacketConn, _ net.Addr, req *dhcpv4.DHCPv4) {
	e.mu.Lock()
	if !e.serving {
		e.mu.Unlock()
		return
	}
	e.handling.Add(1)
	defer e.handling.Done()
	var replies []*dhcpv4.DHCPv4
	if r := e.answer(req); r != nil {
		replies = append(replies, r)
	}
	hook := e.hook
	e.mu.Unlock()
	if hook != nil {
		replies = hook(req, replies)
	}
	for _, r := range replies {
		if err := e.send(conn, req, r); err != nil && !errors.Is(err, net.ErrClosed) {
			e.lab.tb.Logf("lab: %s: send %v: %v", e.Name, r.MessageType(), err)
		}
	}
}

// send follows RFC 2131, 4.1: to ciaddr, else by broadcast where the client
// wants it or the message is a DHCPNAK, else to yiaddr at the client's MAC.
func (e *Embedded) send(conn net.PacketConn, req, r *dhcpv4.DHCPv4) error {
	to := net.IPv4bcast
	switch {
	case r.MessageType() == dhcpv4.MessageTypeNak:
	case !req.ClientIPAddr.IsUnspecified():
		to = req.ClientIPAddr
	case !req.IsBroadcast():
		to = r.YourIPAddr
		if err := e.Do(func() error { return neighbour(to, req.ClientHWAddr) }); err != nil {
			return err
		}
	}
	_, err := conn.WriteTo(r.ToBytes(), &net.UDPAddr{IP: to, Port: dhcpv4.ClientPort})
	return err
}

// neighbour tells the kernel the MAC of a client that doesn't know its address
// yet and so answers no ARP.
func neighbour(ip net.IP, mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(ServerIf)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, IP: ip, HardwareAddr: mac, State: netlink.NUD_REACHABLE,
	})
}
