// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Dhcpd starts ISC dhcpd.
func (l *Lab) Dhcpd(o ServerOptions) *Server {
	l.tb.Helper()
	return l.serve("dhcpd", dhcpd{}, o)
}

type dhcpd struct{}

func (dhcpd) ready() string { return "Server starting service." }

func (dhcpd) command(s *Server) (args, env []string, err error) {
	conf, leases := filepath.Join(s.dir, "dhcpd.conf"), filepath.Join(s.dir, "leases")
	if err := render("dhcpd.conf", conf, s); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(leases, os.O_CREATE|os.O_WRONLY, 0o644) // it must be there
	if err != nil {
		return nil, nil, err
	}
	f.Close()
	return []string{"-4", "-f", "-d", "-user", "root", "-group", "root",
		"-cf", conf, "-lf", leases, "-pf", filepath.Join(s.dir, "pid"), ServerIf}, nil, nil
}

var dhcpdLease = regexp.MustCompile(`(?s)\nlease ([0-9.]+) \{\n(.*?)\n\}`)

// leases reads dhcpd.leases(5), in which the last entry of an address counts.
func (dhcpd) leases(s *Server) ([]ServerLease, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "leases"))
	if err != nil {
		return nil, err
	}
	last := map[netip.Addr]*ServerLease{}
	for _, m := range dhcpdLease.FindAllStringSubmatch("\n"+string(text), -1) {
		addr, err := netip.ParseAddr(m[1])
		if err != nil {
			return nil, err
		}
		l := &ServerLease{Addr: addr}
		last[addr] = nil
		for line := range strings.Lines(m[2]) {
			line = strings.TrimSuffix(strings.TrimSpace(line), ";")
			switch key, value, _ := strings.Cut(line, " "); key {
			case "ends": // "4 2026/11/23 10:00:00" or "never"
				if _, stamp, ok := strings.Cut(value, " "); ok {
					if l.Expiry, err = time.Parse("2006/01/02 15:04:05", stamp); err != nil {
						return nil, err
					}
				}
			case "hardware":
				l.MAC = strings.TrimPrefix(value, "ethernet ")
			case "client-hostname":
				l.Hostname = strings.Trim(value, `"`)
			case "uid":
				l.ClientID = hex.EncodeToString(dhcpdString(value))
			case "binding":
				if value == "state active" {
					last[addr] = l
				}
			}
		}
	}
	var leases []ServerLease
	for _, l := range last {
		if l != nil && (l.Expiry.IsZero() || time.Now().Before(l.Expiry)) {
			leases = append(leases, *l)
		}
	}
	return leases, nil
}

// dhcpdString takes a quoted string apart, in which odd bytes are \ooo and
// quotes and backslashes have a backslash before them.
func dhcpdString(s string) []byte {
	s = strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`)
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if i+3 < len(s) {
				if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
					b = append(b, byte(v))
					i += 3
					continue
				}
			}
			i++
		}
		b = append(b, s[i])
	}
	return b
}

var dhcpdMessage = regexp.MustCompile(`^(DHCP[A-Z]+) (.*)`)

// parse reads: DHCPACK on 10.80.1.1 to 02:… (name) via lan0.
func (dhcpd) parse(line string) (LogEntry, bool) {
	m := dhcpdMessage.FindStringSubmatch(line)
	if m == nil || messageTypes[m[1]] == 0 {
		return LogEntry{}, false
	}
	return entryOf(messageTypes[m[1]], strings.Fields(m[2])), true
}
