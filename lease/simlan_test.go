// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// lan carries messages between sockets and the server, badly when told to. The
// world's lock guards it.
type lan struct {
	w     *world
	srv   server
	rng   *rand.Rand
	loss  float64 // of each message, either way
	dup   float64
	delay func(*rand.Rand) time.Duration
	conns map[*simConn]bool
	arps  map[*simARP]bool
	heard map[*simClaims]bool
	// holders answer ARP for an address from outside this host.
	holders   map[netip.Addr]net.HardwareAddr
	announced map[netip.Addr]int
	probed    map[netip.Addr]int
	log       []sent
	// watch sees every message a client sends; with it log stays empty.
	watch func(sent)
}

// sent is a message a client sent.
type sent struct {
	at     time.Duration
	kind   dhcpv4.MessageType
	mac    string
	via    string // "packet", "udp" or "parent"
	to     netip.Addr
	source netip.Addr
	ciaddr netip.Addr
	asked  netip.Addr // option 50
	server netip.Addr // option 54
	down   bool       // the parent had no carrier
}

// String is what a test compares: kind, way and destination.
func (s sent) String() string {
	dst := "unicast"
	if s.to == broadcast {
		dst = "broadcast"
	}
	return fmt.Sprintf("%v %s %s", s.kind, s.via, dst)
}

func (l *lan) init(w *world) {
	l.w, l.rng = w, rand.New(rand.NewPCG(1, 2))
	l.delay = func(*rand.Rand) time.Duration { return time.Millisecond }
	l.conns, l.arps, l.heard = map[*simConn]bool{}, map[*simARP]bool{}, map[*simClaims]bool{}
	l.holders, l.announced, l.probed = map[netip.Addr]net.HardwareAddr{}, map[netip.Addr]int{}, map[netip.Addr]int{}
	l.srv.init()
}

// messages returns what was sent since the last call.
func (w *world) messages() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ss []string
	for _, m := range w.log {
		ss = append(ss, m.String())
	}
	w.log = nil
	return ss
}

// simConn is a socket on a child or a parent.
type simConn struct {
	w      *world
	via    string
	mac    net.HardwareAddr
	parent string
	source netip.Addr
	kid    *kid
	in     chan dhcpclient.Received
}

func (w *world) open(via, parent string, mac net.HardwareAddr, source netip.Addr, k *kid) *simConn {
	c := &simConn{w: w, via: via, mac: mac, parent: parent, source: source, kid: k, in: make(chan dhcpclient.Received, 64)}
	w.conns[c] = true
	return c
}

func (w *world) Packet(ns provision.Namespace, c provision.Child, source netip.Addr, _ net.HardwareAddr) (dhcpclient.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return nil, err
	}
	return w.open("packet", k.parent, k.MAC, source, k), nil
}

func (w *world) UDP(ns provision.Namespace, c provision.Child, source netip.Addr) (dhcpclient.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return nil, err
	}
	if k.has(w.clock.Now()).Addr() != source {
		return nil, syscall.EADDRNOTAVAIL
	}
	return w.open("udp", k.parent, k.MAC, source, k), nil
}

func (w *world) FromParent(parent string, mac net.HardwareAddr, source netip.Addr, _ net.HardwareAddr) (dhcpclient.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parents[parent] == nil {
		return nil, provision.ErrGone
	}
	return w.open("parent", parent, mac, source, nil), nil
}

// chance is true with probability p.
func (l *lan) chance(p float64) bool { return p > 0 && l.rng.Float64() < p }

func (c *simConn) Send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	w := c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.via == "udp" && w.udpErr != nil {
		return w.udpErr
	}
	if c.kid != nil && c.kid.space.kids[c.kid.Index] != c.kid {
		return syscall.ENETDOWN
	}
	p := w.parents[c.parent]
	s := sent{
		at: w.clock.Now(), kind: m.MessageType(), mac: m.ClientHWAddr.String(), via: c.via, to: to, source: c.source,
		ciaddr: ipAddr(m.ClientIPAddr), asked: ipAddr(m.RequestedIPAddress()), server: ipAddr(m.ServerIdentifier()),
		down: p == nil || !p.Carrier,
	}
	if w.watch != nil {
		w.watch(s)
	} else {
		w.log = append(w.log, s)
	}
	if s.down || to != broadcast && to != w.srv.id {
		return nil
	}
	for range w.copies() {
		time.AfterFunc(w.delay(w.rng), func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, r := range w.srv.answer(w.clock.Now(), m, s) {
				w.deliver(m.ClientHWAddr, r)
			}
		})
	}
	return nil
}

// copies is how often a message arrives.
func (l *lan) copies() int {
	switch {
	case l.chance(l.loss):
		return 0
	case l.chance(l.dup):
		return 2
	}
	return 1
}

func (l *lan) deliver(mac net.HardwareAddr, m *dhcpv4.DHCPv4) {
	for range l.copies() {
		time.AfterFunc(l.delay(l.rng), func() {
			l.w.mu.Lock()
			defer l.w.mu.Unlock()
			for c := range l.conns {
				if c.mac.String() != mac.String() || c.kid == nil {
					continue
				}
				r := dhcpclient.Received{Message: m, From: l.srv.id, FromMAC: l.srv.mac}
				if c.via == "udp" {
					r.FromMAC = nil
				}
				select {
				case c.in <- r:
				default:
				}
			}
		})
	}
}

func (c *simConn) Receive(ctx context.Context) (dhcpclient.Received, error) {
	select {
	case r := <-c.in:
		return r, nil
	case <-ctx.Done():
		return dhcpclient.Received{}, ctx.Err()
	}
}

func (c *simConn) Close() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	delete(c.w.conns, c)
	return nil
}

// simARP is an ARP socket.
type simARP struct {
	w   *world
	mac net.HardwareAddr
	in  chan dhcpclient.ARPPacket
}

func (w *world) ARP(ns provision.Namespace, c provision.Child) (dhcpclient.ARPConn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return nil, err
	}
	a := &simARP{w: w, mac: k.MAC, in: make(chan dhcpclient.ARPPacket, 64)}
	w.arps[a] = true
	return a, nil
}

func (w *world) ParentARP(parent string) (dhcpclient.ARPConn, net.HardwareAddr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parents[parent]
	if p == nil {
		return nil, nil, provision.ErrGone
	}
	a := &simARP{w: w, mac: p.MAC, in: make(chan dhcpclient.ARPPacket, 64)}
	w.arps[a] = true
	return a, p.MAC, nil
}

func (a *simARP) Probe(addr netip.Addr) error {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.probed[addr]++
	if mac := a.w.holders[addr]; mac != nil {
		a.in <- dhcpclient.ARPPacket{SenderMAC: mac, SenderIP: addr}
	}
	return nil
}

func (a *simARP) Announce(addr netip.Addr) error {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.announced[addr]++
	return nil
}

func (a *simARP) Receive(ctx context.Context) (dhcpclient.ARPPacket, error) {
	select {
	case p := <-a.in:
		return p, nil
	case <-ctx.Done():
		return dhcpclient.ARPPacket{}, ctx.Err()
	}
}

func (a *simARP) Close() error {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	delete(a.w.arps, a)
	return nil
}

// server is a DHCP server as RFC 2131, 4.3, has it: authoritative, one subnet.
type server struct {
	id     netip.Addr
	mac    net.HardwareAddr
	first  netip.Addr
	size   int
	lease  time.Duration
	t1, t2 time.Duration
	router netip.Addr
	dns    netip.Addr
	mtu    uint16
	up     bool
	grants map[string]*grant // by MAC
	// told are the grants that clients heard of, or may have, by MAC: one that
	// an operator takes back is used until the server says so.
	told  map[string][]grant
	owner map[netip.Addr]string
	bad   map[netip.Addr]time.Duration // declined, until
	// lie makes of a request and its true answer what is sent instead.
	lie func(req, reply *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4
	// move gives the MAC another address when it renews.
	move     map[string]netip.Addr
	released []netip.Addr
	declined []netip.Addr
	naks     int
}

type grant struct {
	addr  netip.Addr
	until time.Duration
}

func (s *server) init() {
	s.id, s.mac = netip.MustParseAddr("10.0.0.1"), net.HardwareAddr{2, 0, 0, 0, 0, 1}
	s.first, s.size = netip.MustParseAddr("10.0.1.1"), 250
	s.lease, s.t1, s.t2 = 12*time.Hour, 6*time.Hour, 10*time.Hour+30*time.Minute
	s.router, s.dns, s.up = s.id, netip.MustParseAddr("10.0.0.53"), true
	s.told = map[string][]grant{}
	s.grants, s.owner, s.bad, s.move = map[string]*grant{}, map[netip.Addr]string{}, map[netip.Addr]time.Duration{}, map[string]netip.Addr{}
}

// drop takes a grant back, as an operator does.
func (s *server) drop(mac string) {
	if g := s.grants[mac]; g != nil {
		delete(s.owner, g.addr)
		delete(s.grants, mac)
	}
}

func (s *server) answer(now time.Duration, m *dhcpv4.DHCPv4, from sent) []*dhcpv4.DHCPv4 {
	if !s.up {
		return nil
	}
	if g := s.grants[from.mac]; g != nil && now >= g.until {
		s.drop(from.mac)
	}
	g := s.grants[from.mac]
	var r *dhcpv4.DHCPv4
	switch from.kind {
	case dhcpv4.MessageTypeDiscover:
		addr := s.choose(now, from)
		if !addr.IsValid() {
			return nil
		}
		if g == nil { // promised for a minute
			s.grants[from.mac], s.owner[addr] = &grant{addr, now + time.Minute}, from.mac
		}
		r = s.reply(m, dhcpv4.MessageTypeOffer, addr)
	case dhcpv4.MessageTypeRequest:
		want := from.asked
		if from.ciaddr.IsValid() {
			want = from.ciaddr
		}
		switch {
		case from.server.IsValid() && from.server != s.id:
			return nil
		case g == nil || g.addr != want:
			s.naks++
			r = s.reply(m, dhcpv4.MessageTypeNak, netip.Addr{})
		default:
			if to, ok := s.move[from.mac]; ok && from.ciaddr.IsValid() {
				delete(s.owner, g.addr)
				delete(s.move, from.mac)
				g.addr, s.owner[to] = to, from.mac
			}
			g.until = now + s.lease
			if s.lease == dhcpclient.Infinite {
				g.until = never
			}
			s.told[from.mac] = append(slices.DeleteFunc(s.told[from.mac], func(t grant) bool { return now > t.until }), *g)
			r = s.reply(m, dhcpv4.MessageTypeAck, g.addr)
		}
	case dhcpv4.MessageTypeDecline:
		s.declined = append(s.declined, from.asked)
		s.bad[from.asked] = now + 24*time.Hour
		delete(s.told, from.mac)
		s.drop(from.mac)
		return nil
	case dhcpv4.MessageTypeRelease:
		if g != nil && g.addr == from.ciaddr && from.source == from.ciaddr && from.server == s.id {
			s.released = append(s.released, g.addr)
			delete(s.told, from.mac)
			s.drop(from.mac)
		}
		return nil
	}
	if s.lie != nil {
		return s.lie(m, r)
	}
	return []*dhcpv4.DHCPv4{r}
}

// choose is the address for a DISCOVER: the client's, the one it asks for, else
// a free one.
func (s *server) choose(now time.Duration, from sent) netip.Addr {
	if g := s.grants[from.mac]; g != nil {
		return g.addr
	}
	free := func(a netip.Addr) bool {
		if mac, ok := s.owner[a]; ok {
			if now < s.grants[mac].until {
				return false
			}
			s.drop(mac)
		}
		return now >= s.bad[a]
	}
	var pool []netip.Addr
	for a := s.first; len(pool) < s.size; a = a.Next() {
		pool = append(pool, a)
	}
	if slices.Contains(pool, from.asked) && free(from.asked) {
		return from.asked
	}
	for _, a := range pool {
		if free(a) {
			return a
		}
	}
	return netip.Addr{}
}

func (s *server) reply(req *dhcpv4.DHCPv4, t dhcpv4.MessageType, addr netip.Addr) *dhcpv4.DHCPv4 {
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(t), dhcpv4.WithServerIP(net.IPv4zero), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.id.AsSlice()))}
	if t != dhcpv4.MessageTypeNak {
		mods = append(mods, dhcpv4.WithYourIP(addr.AsSlice()), dhcpv4.WithLeaseTime(uint32(s.lease/time.Second)),
			dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(s.t1)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(s.t2)),
			dhcpv4.WithNetmask(net.CIDRMask(16, 32)), dhcpv4.WithRouter(s.router.AsSlice()), dhcpv4.WithDNS(s.dns.AsSlice()))
		if s.mtu != 0 {
			mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(s.mtu >> 8), byte(s.mtu)}))
		}
	}
	r, err := dhcpv4.NewReplyFromRequest(req, mods...)
	if err != nil {
		panic(err)
	}
	return r
}

func ipAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
