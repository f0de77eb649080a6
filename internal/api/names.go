// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"
	"strings"
	"unicode"
)

// Target kinds.
const (
	TargetDocker = "docker"
	TargetNetNS  = "netns"
	TargetPID    = "pid"
)

// Target is a TARGET of the command line, taken apart.
type Target struct {
	Kind string // TargetDocker, TargetNetNS or TargetPID
	// Name is a container's name or id, a namespace's name or absolute path,
	// or a process id in decimal.
	Name string
}

// ParseTarget reads NAME (a container), docker:NAME, netns:NAME, netns:/PATH or
// pid:N. Its error is an *Error of CodeUsage.
func ParseTarget(s string) (Target, error) {
	const forms = "give a container's name or id, docker:NAME, netns:NAME, netns:/PATH or pid:N"
	kind, name, prefixed := strings.Cut(s, ":")
	if !prefixed {
		kind, name = TargetDocker, s
	}
	var bad bool
	switch {
	case s == "":
		return Target{}, usage("no TARGET: %s", forms)
	case len(s) > maxPath || !printable(s):
		bad = true
	case kind == TargetDocker:
		bad = !isContainer(name)
	case kind == TargetNetNS:
		bad = name == "" || name == "." || name == ".." || name[0] != '/' && strings.Contains(name, "/")
	case kind == TargetPID:
		n, err := strconv.ParseUint(name, 10, 31) // pid_t
		bad = err != nil || n == 0
	default:
		bad = true
	}
	if bad {
		return Target{}, usage("TARGET %q: %s", shorten(s), forms)
	}
	return Target{Kind: kind, Name: name}, nil
}

// isContainer takes the names that an engine gives to containers, and ids.
func isContainer(s string) bool {
	for i, r := range s {
		switch {
		case r > unicode.MaxASCII:
			return false
		case unicode.IsLetter(r), unicode.IsDigit(r):
		case i > 0 && strings.ContainsRune("_.-", r):
		default:
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// CheckParent takes an interface name whose part after the last dot, where it
// is a number, can be a VLAN id (IEEE 802.1Q, 9.6: 1 to 4094).
func CheckParent(s string) error {
	if s == "" {
		return usage("no --parent: name the interface or VLAN (IF or IF.VID) to attach to")
	}
	if reason := badLinkName(s); reason != "" {
		return usage("--parent %q: %s: give an interface's name such as eth0 or eth0.100", shorten(s), reason)
	}
	i := strings.LastIndexByte(s, '.')
	if i < 0 || strings.Trim(s[i+1:], "0123456789") != "" {
		return nil
	}
	vid, err := strconv.Atoi(s[i+1:])
	if err != nil || vid < 1 || vid > 4094 {
		return usage("--parent %q: no such VLAN: give an id from 1 to 4094 after the dot", s)
	}
	return exclude(i == 0, "--parent %q: no interface before the dot: give IF.VID such as eth0.100", s)
}

func checkIfname(s string) error {
	if s == "all" || s == "default" { // devinet_sysctl_register in net/ipv4/devinet.c
		return usage("--ifname %q: the kernel gives no interface this name: give one such as eth0", s)
	}
	if reason := badLinkName(s); reason != "" {
		return usage("--ifname %q: %s: give a name such as eth0", shorten(s), reason)
	}
	return nil
}

// badLinkName says why the kernel would not take s as a link's name
// (dev_valid_name in net/core/dev.c), or would make another one of it (%d).
func badLinkName(s string) string {
	switch {
	case len(s) > 15:
		return "longer than 15 bytes"
	case s == "." || s == "..":
		return "not an interface's name"
	case strings.ContainsAny(s, "/:%"):
		return "holds a slash, colon or percent sign"
	case strings.IndexFunc(s, unicode.IsSpace) >= 0:
		return "holds a space"
	case s == "" || !printable(s):
		return "empty, or holds characters that can't be printed"
	}
	return ""
}

// shorten keeps a value that is quoted in an error to a line.
func shorten(s string) string {
	if len(s) > 64 {
		return s[:61] + "..."
	}
	return s
}
