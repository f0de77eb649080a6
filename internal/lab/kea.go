// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/csv"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kea starts kea-dhcp4 with its leases in a file.
func (l *Lab) Kea(o ServerOptions) *Server {
	l.tb.Helper()
	return l.serve("kea-dhcp4", kea{}, o)
}

type kea struct{}

func (kea) ready() string { return "DHCP4_STARTED" }

func (kea) command(s *Server) (args, env []string, err error) {
	conf := filepath.Join(s.dir, "kea.conf")
	if err := render("kea.conf", conf, s); err != nil {
		return nil, nil, err
	}
	return []string{"-c", conf}, []string{"KEA_PIDFILE_DIR=" + s.dir, "KEA_LOCKFILE_DIR=" + s.dir}, nil
}

// leases reads the memfile's CSV, in which the last line of an address counts
// and one with a lifetime of 0 is a released lease.
func (kea) leases(s *Server) ([]ServerLease, error) {
	f, err := os.Open(filepath.Join(s.dir, "leases.csv"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	// address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,…
	const address, hwaddr, clientID, lifetime, expire, hostname, state = 0, 1, 2, 3, 4, 8, 9
	last := map[netip.Addr]*ServerLease{}
	for _, row := range rows {
		if len(row) <= state || row[address] == "address" {
			continue
		}
		addr, err := netip.ParseAddr(row[address])
		if err != nil {
			return nil, err
		}
		end, err := strconv.ParseInt(row[expire], 10, 64)
		if err != nil {
			return nil, err
		}
		if row[lifetime] == "0" || row[state] != "0" {
			delete(last, addr)
			continue
		}
		l := &ServerLease{MAC: row[hwaddr], Addr: addr, Hostname: strings.TrimSuffix(row[hostname], "."),
			ClientID: strings.ReplaceAll(row[clientID], ":", "")}
		if row[lifetime] != "4294967295" {
			l.Expiry = time.Unix(end, 0)
		}
		last[addr] = l
	}
	var leases []ServerLease
	for _, l := range last {
		if l.Expiry.IsZero() || time.Now().Before(l.Expiry) {
			leases = append(leases, *l)
		}
	}
	return leases, nil
}

var keaMessage = regexp.MustCompile(`DHCP4_PACKET_(?:RECEIVED|SEND) \[hwtype=1 ([0-9a-f:]+)\].*?(DHCP[A-Z]+) \(type \d+\)`)

// parse reads: … DHCP4_PACKET_RECEIVED [hwtype=1 02:…], cid=[…], tid=0x…:
// DHCPDISCOVER (type 1) received from ….
func (kea) parse(line string) (LogEntry, bool) {
	m := keaMessage.FindStringSubmatch(line)
	if m == nil || messageTypes[m[2]] == 0 {
		return LogEntry{}, false
	}
	return LogEntry{Type: messageTypes[m[2]], MAC: m[1]}, true
}
