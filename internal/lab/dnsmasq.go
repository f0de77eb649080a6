// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Dnsmasq starts dnsmasq as a DHCP server.
func (l *Lab) Dnsmasq(o ServerOptions) *Server {
	l.tb.Helper()
	return l.serve("dnsmasq", dnsmasq{}, o)
}

type dnsmasq struct{}

func (dnsmasq) ready() string { return "sockets bound exclusively to interface " + ServerIf }

func (dnsmasq) command(s *Server) (args, env []string, err error) {
	o := s.Options
	mask := o.LAN.Subnet
	args = []string{
		"--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-", "--log-dhcp",
		"--user=root", "--group=root", "--no-resolv", "--no-hosts", "--no-poll",
		"--interface=" + ServerIf, "--bind-interfaces", "--dhcp-lease-max=100000",
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--dhcp-leasefile=" + filepath.Join(s.dir, "leases"),
		fmt.Sprintf("--dhcp-range=%v,%v,%v,%s", o.First, o.Last, maskOf(mask), dnsmasqTime(o.Lease)),
		"--dhcp-option=option:dns-server," + joinAddrs(o.DNS, ","),
		"--domain=" + o.Domain, "--dhcp-option=option:domain-name," + o.Domain,
	}
	if o.NoRouter {
		args = append(args, "--dhcp-option=option:router")
	} else {
		args = append(args, fmt.Sprintf("--dhcp-option=option:router,%v", o.Router))
	}
	if o.T1 > 0 {
		args = append(args, fmt.Sprintf("--dhcp-option=option:T1,%d", seconds(o.T1)))
	}
	if o.T2 > 0 {
		args = append(args, fmt.Sprintf("--dhcp-option=option:T2,%d", seconds(o.T2)))
	}
	if !slices.ContainsFunc(o.Extra, func(a string) bool { return strings.HasPrefix(a, "--port=") }) {
		args = append(args, "--port=0") // no DNS
	}
	if !o.Ping {
		args = append(args, "--no-ping")
	}
	if !o.NotAuthoritative {
		args = append(args, "--dhcp-authoritative")
	}
	for mac, addr := range o.Reserved {
		args = append(args, fmt.Sprintf("--dhcp-host=%s,%v", mac, addr))
	}
	return append(args, o.Extra...), nil, nil
}

func dnsmasqTime(d time.Duration) string {
	if d >= Forever {
		return "infinite"
	}
	return strconv.Itoa(seconds(d))
}

// writing is more than it takes to write a lease file of any length.
const writing = 10 * time.Second

// leases reads lines of: expiry MAC address hostname client-id.
func (dnsmasq) leases(s *Server) ([]ServerLease, error) {
	text, err := ReadIdle(s.process.PID, filepath.Join(s.dir, "leases"), writing)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var leases []ServerLease
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			continue
		}
		expiry, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			continue // "duid …" of DHCPv6
		}
		addr, err := netip.ParseAddr(f[2])
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		l := ServerLease{MAC: f[1], Addr: addr, Hostname: noStar(f[3]), ClientID: strings.ReplaceAll(noStar(f[4]), ":", "")}
		if expiry != 0 {
			l.Expiry = time.Unix(expiry, 0)
		}
		leases = append(leases, l)
	}
	return leases, nil
}

func noStar(s string) string {
	if s == "*" {
		return ""
	}
	return s
}

var dnsmasqMessage = regexp.MustCompile(`\b(DHCP[A-Z]+)\(` + ServerIf + `\) (.*)`)

// parse reads: dnsmasq-dhcp: 2143 DHCPACK(lan0) 10.80.1.1 02:… name.
func (dnsmasq) parse(line string) (LogEntry, bool) {
	m := dnsmasqMessage.FindStringSubmatch(line)
	if m == nil || messageTypes[m[1]] == 0 {
		return LogEntry{}, false
	}
	return entryOf(messageTypes[m[1]], strings.Fields(m[2])), true
}

func seconds(d time.Duration) int { return int(d / time.Second) }

func maskOf(p netip.Prefix) netip.Addr {
	m := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

func joinAddrs(addrs []netip.Addr, sep string) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, sep)
}
