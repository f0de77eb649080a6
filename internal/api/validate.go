// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mvdhcp/lease"
)

// What the flags of attach take where there is a choice; the first is the
// default.
var (
	Modes          = []string{"bridge", "private", "vepa"}
	RoutePolicies  = []string{"all", "default", "none"}
	ConflictChecks = []string{"fast", "wait", "async", "off"}
)

// Defaults of the command line.
const (
	DefaultTimeout = 30 * time.Second
	DefaultWindow  = 2 * time.Second
)

// MinMTU is what a DHCP message takes (RFC 2131, section 2: a client must be
// able to receive 576 bytes); a child below it could not renew.
const (
	MinMTU = 576
	MaxMTU = 65535
)

const (
	maxIdentity = 128
	maxClientID = 1024 // 255 bytes as hexadecimal with colons, and its prefix
	maxPath     = 4096
	maxTimeout  = 24 * time.Hour
	maxServers  = 64
)

// Validate judges what can be judged without the host. It returns an *Error of
// CodeUsage that names the flag, or nil. Empty fields but Target and Parent
// stand for defaults and pass.
func (r *AttachRequest) Validate() error {
	if _, err := ParseTarget(r.Target); err != nil {
		return err
	}
	return firstOf(
		CheckParent(r.Parent),
		check(r.Ifname, checkIfname),
		checkOneOf("--mode", r.Mode, Modes),
		check(r.Identity, checkIdentity),
		check(r.MAC, checkMAC),
		check(r.ClientID, checkClientID),
		check(r.Hostname, checkHostname),
		exclude(r.Hostname != "" && r.NoHostname, "--hostname and --no-hostname contradict each other: give one of them"),
		check(r.RequestIP, func(s string) error { return checkUnicast("--request-ip", s) }),
		checkText("--vendor-class", r.VendorClass, 255),
		checkText("--user-class", r.UserClass, 254), // one byte of option 77 is the length (RFC 3004)
		exclude(r.Metric < 0 || int64(r.Metric) > 1<<32-1, "--metric %d: give a number from 0 to 4294967295", r.Metric),
		checkOneOf("--routes", r.Routes, RoutePolicies),
		exclude(r.MTU != 0 && (r.MTU < MinMTU || r.MTU > MaxMTU), "--mtu %d: give a number from %d (what DHCP needs) to %d", r.MTU, MinMTU, MaxMTU),
		checkOneOf("--conflict-check", r.ConflictCheck, ConflictChecks),
		checkServers(r.AllowServers, r.DenyServers),
		exclude(r.Timeout < 0 || r.Timeout > maxTimeout, "--timeout %v: give a time above 0 and up to 24h, such as 30s", r.Timeout),
		checkText("DOCKER_HOST", r.DockerHost, maxPath),
	)
}

// Validate is as for AttachRequest.
func (r *DetachRequest) Validate() error {
	if _, err := ParseTarget(r.Target); err != nil {
		return err
	}
	return firstOf(check(r.Ifname, checkIfname), checkText("DOCKER_HOST", r.DockerHost, maxPath))
}

// Validate is as for AttachRequest.
func (r *ProbeRequest) Validate() error {
	return firstOf(
		CheckParent(r.Parent),
		exclude(r.Window < 0 || r.Window > time.Minute, "--window %v: give a time above 0 and up to 1m, such as 2s", r.Window),
		checkText("--vendor-class", r.VendorClass, 255),
		check(r.ClientID, checkClientID),
		check(r.MAC, checkMAC),
	)
}

// Validate is as for AttachRequest.
func (r *HostLinkRequest) Validate() error {
	given := HostLinkRequest{Parent: r.Parent, Remove: r.Remove, Timeout: r.Timeout, ConflictCheck: r.ConflictCheck}
	return firstOf(
		CheckParent(r.Parent),
		exclude(r.Remove && *r != given, "--remove takes the whole link away: give nothing else but --parent"),
		check(r.Address, checkLinkAddress),
		exclude(r.Address != "" && (r.ClientID != "" || r.Hostname != ""), "--address asks no DHCP server: leave --client-id and --hostname out"),
		check(r.Ifname, checkIfname),
		check(r.MAC, checkMAC),
		check(r.ClientID, checkClientID),
		check(r.Hostname, checkHostname),
		checkOneOf("--conflict-check", r.ConflictCheck, ConflictChecks),
		exclude(r.Timeout < 0 || r.Timeout > maxTimeout, "--timeout %v: give a time above 0 and up to 24h, such as 30s", r.Timeout),
	)
}

// checkLinkAddress takes an address with or without a length, which has no
// meaning on a host link.
func checkLinkAddress(s string) error {
	addr, bits, ok := strings.Cut(s, "/")
	if ok {
		n, err := strconv.ParseUint(bits, 10, 8)
		if err != nil || n < 1 || n > 32 {
			return usage("--address %q: give an IPv4 address such as 10.0.0.9", shorten(s))
		}
	}
	return checkUnicast("--address", addr)
}

// ValidateQuery judges the LEASE or TARGET of leases, renew and release.
func ValidateQuery(q string) error {
	return checkText("LEASE|TARGET", q, maxPath)
}

// usage makes the error of a bad request.
func usage(format string, args ...any) error {
	return &Error{Code: CodeUsage, Message: fmt.Sprintf(format, args...)}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// check judges s unless it is empty.
func check(s string, judge func(string) error) error {
	if s == "" {
		return nil
	}
	return judge(s)
}

func exclude(bad bool, format string, args ...any) error {
	if !bad {
		return nil
	}
	return usage(format, args...)
}

func checkOneOf(flag, s string, all []string) error {
	return exclude(s != "" && !slices.Contains(all, s), "%s %q: give one of %s", flag, shorten(s), strings.Join(all, ", "))
}

// checkText holds s to limit bytes of printable UTF-8.
func checkText(name, s string, limit int) error {
	if len(s) > limit {
		return usage("%s is %d bytes long: give at most %d", name, len(s), limit)
	}
	return exclude(!printable(s), "%s %q: holds characters that can't be printed", name, shorten(s))
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func checkIdentity(s string) error {
	if err := checkText("--identity", s, maxIdentity); err != nil {
		return err
	}
	name := strings.TrimPrefix(s, lease.ClusterPrefix)
	return exclude(name == "" || strings.TrimSpace(s) != s, "--identity %q: give a name that is not empty and has no space around it", s)
}

func checkMAC(s string) error {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return usage("--mac %q: not an Ethernet address: give six bytes such as 02:00:5e:10:00:01", shorten(s))
	case mac[0]&1 != 0:
		return usage("--mac %s: a multicast address: give a unicast one (even first byte) such as 02:00:5e:10:00:01", s)
	case strings.Trim(mac.String(), "0:") == "":
		return usage("--mac %s: all zero: give an address such as 02:00:5e:10:00:01", s)
	}
	return nil
}

func checkClientID(s string) error {
	if err := checkText("--client-id", s, maxClientID); err != nil {
		return err
	}
	if _, err := lease.ParseClientID(s, make(net.HardwareAddr, 6), "", "", ""); err != nil {
		return usage("--client-id %q: not 2 to 255 bytes: give text, hex:BYTES, 0xBYTES or duid", shorten(s))
	}
	return nil
}

// checkHostname takes the names of RFC 1123, section 2.1, and the underscore
// that containers' names have.
func checkHostname(s string) error {
	if len(s) > 255 {
		return usage("--hostname is %d bytes long: give at most 255 (option 12)", len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		bad := label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.IndexFunc(label, func(r rune) bool {
				return r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
			}) >= 0
		if bad {
			return usage("--hostname %q: not a host name: give letters, digits and hyphens, at most 63 between dots", shorten(s))
		}
	}
	return nil
}

// checkUnicast takes an IPv4 address that a host can have.
func checkUnicast(flag, s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return usage("%s %q: not an IPv4 address: give one such as 192.0.2.10", flag, shorten(s))
	}
	first := a.As4()[0]
	return exclude(first == 0 || first == 127 || first >= 224, "%s %s: not a host's unicast address: give one such as 192.0.2.10", flag, s)
}

func checkServers(allow, deny []string) error {
	if len(allow) > maxServers || len(deny) > maxServers {
		return usage("too many servers: give --allow-server and --deny-server at most %d times each", maxServers)
	}
	for _, s := range allow {
		if err := checkUnicast("--allow-server", s); err != nil {
			return err
		}
	}
	for _, s := range deny {
		if err := checkUnicast("--deny-server", s); err != nil {
			return err
		}
		if slices.Contains(allow, s) {
			return usage("server %s is both allowed and denied: give --allow-server or --deny-server", s)
		}
	}
	return nil
}
