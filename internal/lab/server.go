// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// ServerIf is the name of a server's interface in its namespace.
const ServerIf = "lan0"

// ServerOptions say what a DHCP server does. The zero value is a server on the
// lab's first LAN that is also its router, with a pool of 64,000 addresses and
// leases of two minutes.
type ServerOptions struct {
	LAN  *LAN
	Name string // role of its namespace; default: the program's name
	// Addr is the server's own address. Default: the LAN's first.
	Addr netip.Addr
	// First and Last are the ends of the pool. Default: x.y.1.1 to x.y.250.250.
	First, Last netip.Addr
	// Lease is at least two minutes with dnsmasq.
	Lease time.Duration
	// T1 and T2 are options 58 and 59; zero: the server's own idea.
	T1, T2 time.Duration
	// Router is option 3; zero: the server itself. NoRouter leaves it out.
	Router   netip.Addr
	NoRouter bool
	DNS      []netip.Addr // option 6; default x.y.0.53
	Domain   string       // option 15; default "lab.test"
	// Reserved gives clients their own addresses, by MAC.
	Reserved map[string]netip.Addr
	// Ping has the server probe an address before it offers it.
	Ping bool
	// NotAuthoritative has it keep silent about addresses it knows nothing of.
	NotAuthoritative bool
	// Extra are more arguments of dnsmasq, or more lines of the other servers'
	// configuration (Kea: members of "Dhcp4").
	Extra []string
}

// Server is a DHCP server in a namespace of its own.
type Server struct {
	*NS
	Kind    string // "dnsmasq", "kea-dhcp4", "dhcpd" or "udhcpd"
	Addr    netip.Addr
	Options ServerOptions

	lab     *Lab
	driver  driver
	dir     string
	process *Process
	earlier string // output of processes before this one
}

// driver is what differs between the programs.
type driver interface {
	// command writes what the program needs below s.dir and returns its
	// arguments and additions to its environment.
	command(s *Server) (args, env []string, err error)
	// ready is what the program prints once it serves.
	ready() string
	// leases reads the lease file.
	leases(s *Server) ([]ServerLease, error)
	// parse reads a line of the log; false when it tells of no message.
	parse(line string) (LogEntry, bool)
}

// ServerLease is a line of a server's lease file.
type ServerLease struct {
	Expiry   time.Time // zero: never
	MAC      string
	Addr     netip.Addr
	Hostname string
	ClientID string // hex, type byte first; "" where the server keeps none
}

// LogEntry is a message that a server's log tells of. The MAC is empty where
// the log leaves it out.
type LogEntry struct {
	Type dhcpv4.MessageType
	MAC  string
	Addr netip.Addr
	Line string
}

func (l *Lab) serve(kind string, d driver, o ServerOptions) *Server {
	l.tb.Helper()
	o = o.withDefaults(l, kind)
	s := &Server{NS: l.NS(o.Name), Kind: kind, Addr: o.Addr, Options: o, lab: l, driver: d}
	o.LAN.plug(s.NS, ServerIf)
	s.AddAddr(ServerIf, netip.PrefixFrom(o.Addr, o.LAN.Subnet.Bits()).String())
	s.dir = filepath.Join(l.dir, s.Name)
	l.must(os.Mkdir(s.dir, 0o777), "make the directory of %s", s.Name)
	s.Start()
	return s
}

func (o ServerOptions) withDefaults(l *Lab, name string) ServerOptions {
	l.tb.Helper()
	if o.LAN == nil {
		o.LAN = l.LAN("lan")
	}
	if o.Name == "" {
		o.Name = name
	}
	def := func(a *netip.Addr, n int) {
		if !a.IsValid() {
			*a = o.LAN.Addr(n)
		}
	}
	def(&o.Addr, 1)
	def(&o.First, 1<<8|1)
	def(&o.Last, 250<<8|250)
	if o.Lease == 0 {
		o.Lease = 2 * time.Minute
	}
	if !o.Router.IsValid() {
		o.Router = o.Addr
	}
	if o.DNS == nil {
		o.DNS = []netip.Addr{o.LAN.Addr(53)}
	}
	if o.Domain == "" {
		o.Domain = "lab.test"
	}
	return o
}

// Start runs the server, again after Stop or Kill, and waits until it serves.
func (s *Server) Start() {
	s.lab.tb.Helper()
	args, env, err := s.driver.command(s)
	s.lab.must(err, "configure %s", s.Kind)
	if s.process != nil {
		s.earlier += s.process.Output()
	}
	cmd := newCommand(s.lab.Tool(s.Kind), args, env)
	cmd.Dir = s.dir
	s.process = s.NS.StartCommand(cmd)
	s.process.AwaitOutput(15*time.Second, s.driver.ready())
}

// Stop asks the server to end and waits until it has. Its lease file stays.
func (s *Server) Stop() { s.lab.tb.Helper(); s.process.Term() }

// Kill ends it without a word.
func (s *Server) Kill() { s.process.Kill9() }

// Restart is Stop and Start.
func (s *Server) Restart() {
	s.lab.tb.Helper()
	s.Stop()
	s.Start()
}

// Forget is Restart with an empty lease file.
func (s *Server) Forget() {
	s.lab.tb.Helper()
	s.Kill()
	files, _ := filepath.Glob(filepath.Join(s.dir, "leases*"))
	for _, f := range files {
		s.lab.must(os.Remove(f), "remove lease file")
	}
	s.Start()
}

// Freeze stops the process as it is, so that it answers nothing and its socket
// stays; Thaw has it go on.
func (s *Server) Freeze() { s.process.Signal(unix.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.process.Signal(unix.SIGCONT) }

// Process is the running server.
func (s *Server) Process() *Process { return s.process }

// Leases are those in the server's lease file that are not released, by address.
func (s *Server) Leases() []ServerLease {
	s.lab.tb.Helper()
	leases, err := s.driver.leases(s)
	s.lab.must(err, "read the lease file of %s", s.Kind)
	slices.SortFunc(leases, func(a, b ServerLease) int { return a.Addr.Compare(b.Addr) })
	return leases
}

// Lease is the one of a MAC.
func (s *Server) Lease(mac string) (ServerLease, bool) {
	s.lab.tb.Helper()
	for _, l := range s.Leases() {
		if l.MAC == mac {
			return l, true
		}
	}
	return ServerLease{}, false
}

// WaitLeases waits until the lease file satisfies ok.
func (s *Server) WaitLeases(timeout time.Duration, what string, ok func([]ServerLease) bool) []ServerLease {
	s.lab.tb.Helper()
	var leases []ServerLease
	s.lab.Eventually(timeout, fmt.Sprintf("lease file of %s: %s", s.Name, what), func() bool {
		leases = s.Leases()
		return ok(leases)
	})
	return leases
}

// WaitEmpty waits until the server holds no lease.
func (s *Server) WaitEmpty(timeout time.Duration) {
	s.lab.tb.Helper()
	s.WaitLeases(timeout, "no lease left", func(l []ServerLease) bool { return len(l) == 0 })
}

// Output is all that the server has printed.
func (s *Server) Output() string { return s.earlier + s.process.Output() }

// Log is what the server's log says of DHCP messages.
func (s *Server) Log() []LogEntry {
	var entries []LogEntry
	for line := range strings.Lines(s.Output()) {
		line = strings.TrimSuffix(line, "\n")
		if e, ok := s.driver.parse(line); ok {
			e.Line = line
			entries = append(entries, e)
		}
	}
	return entries
}

// Count is how many messages of a type the log tells of, from or to a MAC; ""
// is all of them.
func (s *Server) Count(t dhcpv4.MessageType, mac string) int {
	n := 0
	for _, e := range s.Log() {
		if e.Type == t && (mac == "" || e.MAC == mac) {
			n++
		}
	}
	return n
}

// WaitCount waits until the log tells of n such messages or more. Servers write
// to their log and to their lease file in any order.
func (s *Server) WaitCount(timeout time.Duration, t dhcpv4.MessageType, mac string, n int) {
	s.lab.tb.Helper()
	s.lab.Eventually(timeout, fmt.Sprintf("log of %s tells of %d %v of %q", s.Name, n, t, mac), func() bool {
		return s.Count(t, mac) >= n
	})
}

// messageTypes by the names that logs use.
var messageTypes = map[string]dhcpv4.MessageType{
	"DHCPDISCOVER": dhcpv4.MessageTypeDiscover,
	"DHCPOFFER":    dhcpv4.MessageTypeOffer,
	"DHCPREQUEST":  dhcpv4.MessageTypeRequest,
	"DHCPDECLINE":  dhcpv4.MessageTypeDecline,
	"DHCPACK":      dhcpv4.MessageTypeAck,
	"DHCPNAK":      dhcpv4.MessageTypeNak,
	"DHCPRELEASE":  dhcpv4.MessageTypeRelease,
	"DHCPINFORM":   dhcpv4.MessageTypeInform,
}

// entryOf reads what all logs have in common: the words that are a MAC and an
// address.
func entryOf(t dhcpv4.MessageType, words []string) LogEntry {
	e := LogEntry{Type: t}
	for _, w := range words {
		if a, err := netip.ParseAddr(w); err == nil && a.Is4() && !e.Addr.IsValid() {
			e.Addr = a
		} else if m, err := net.ParseMAC(w); err == nil && len(m) == 6 && e.MAC == "" {
			e.MAC = m.String()
		}
	}
	return e
}
