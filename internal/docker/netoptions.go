// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Network is a network of the driver: what docker network create -o said.
type Network struct {
	ID            string        `json:"id"`
	Parent        string        `json:"parent"`
	Mode          string        `json:"mode,omitempty"`
	ClientID      string        `json:"client_id,omitempty"` // a scheme: mac, duid, identity
	VendorClass   string        `json:"vendor_class,omitempty"`
	UserClass     string        `json:"user_class,omitempty"`
	NoHostname    bool          `json:"no_hostname,omitempty"`
	AllowServers  []string      `json:"allow_servers,omitempty"`
	DenyServers   []string      `json:"deny_servers,omitempty"`
	ConflictCheck string        `json:"conflict_check,omitempty"`
	Timeout       time.Duration `json:"timeout"`
	ReleaseDelay  time.Duration `json:"release_delay"`
	Metric        int           `json:"metric,omitempty"`
	Routes        string        `json:"routes,omitempty"`
	MTU           int           `json:"mtu,omitempty"`
	// Prefix begins the interface's name in the container.
	Prefix string `json:"prefix,omitempty"`
	// Internal networks get no routes.
	Internal bool `json:"internal,omitempty"`
}

// maxNetworkDelay is the longest release-delay of a network.
const maxNetworkDelay = 365 * 24 * time.Hour

// option reads the value of one option into a Network.
type option func(n *Network, v string) error

// networkOptions are those of -o. Those in ipamOnly belong to --ipam-opt where
// the network has --ipam-driver mvdhcp.
var networkOptions = map[string]option{
	"parent":         func(n *Network, v string) error { n.Parent = v; return nil },
	"mode":           func(n *Network, v string) error { n.Mode = v; return nil },
	"client-id":      clientIDScheme,
	"vendor-class":   func(n *Network, v string) error { n.VendorClass = v; return nil },
	"user-class":     func(n *Network, v string) error { n.UserClass = v; return nil },
	"hostname":       func(n *Network, v string) error { return readOnOff(v, &n.NoHostname) },
	"allow-server":   func(n *Network, v string) error { n.AllowServers = strings.Split(v, ","); return nil },
	"deny-server":    func(n *Network, v string) error { n.DenyServers = strings.Split(v, ","); return nil },
	"conflict-check": func(n *Network, v string) error { n.ConflictCheck = v; return nil },
	"timeout":        func(n *Network, v string) error { return readTimeout(v, 0, &n.Timeout) },
	"release-delay":  func(n *Network, v string) error { return readReleaseDelay(v, maxNetworkDelay, &n.ReleaseDelay) },
	"metric":         func(n *Network, v string) error { return number(v, &n.Metric) },
	"routes":         func(n *Network, v string) error { n.Routes = v; return nil },
	"mtu":            func(n *Network, v string) error { return number(v, &n.MTU) },
	"ifname-prefix":  prefix,
	// What the engine's own drivers call them.
	"com.docker.network.driver.mtu":             func(n *Network, v string) error { return number(v, &n.MTU) },
	"com.docker.network.container_iface_prefix": prefix,
}

var ipamOnly = []string{"client-id", "vendor-class", "user-class", "hostname", "allow-server", "deny-server", "conflict-check", "timeout", "release-delay"}

// parseNetwork reads the options of a network and has them judged. ownIPAM says
// that its addresses come from the IPAM plugin, and not from the driver.
func parseNetwork(opts map[string]string, ownIPAM bool, judge func(Options) error) (n Network, err error) {
	n = Network{Timeout: defaultTimeout, ReleaseDelay: defaultReleaseDelay}
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		set := networkOptions[name]
		switch {
		case set == nil && strings.HasPrefix(name, "com.docker."):
			continue
		case set == nil:
			return n, fmt.Errorf("-o %s is unknown: mvdhcp takes %s", name, names(networkOptions))
		case ownIPAM && slices.Contains(ipamOnly, name):
			return n, fmt.Errorf("-o %s has no effect with --ipam-driver mvdhcp, which gets the addresses: give --ipam-opt %s=%s", name, name, opts[name])
		}
		if err := set(&n, opts[name]); err != nil {
			return n, fmt.Errorf("-o %s=%s: %w", name, opts[name], err)
		}
	}
	if n.Parent == "" {
		return n, errors.New("no parent: give -o parent=IF, the network card or VLAN (IF.VID) that leads to the network")
	}
	return n, asOption("-o ", judge(Options{
		Parent: n.Parent, Mode: n.Mode, VendorClass: n.VendorClass, UserClass: n.UserClass,
		Metric: n.Metric, Routes: n.Routes, MTU: n.MTU, ConflictCheck: n.ConflictCheck,
		AllowServers: n.AllowServers, DenyServers: n.DenyServers, Timeout: n.Timeout,
	}))
}

// asOption words what attach says of its flags for flags of the engine.
func asOption(flag string, err error) error {
	if err == nil {
		return nil
	}
	s := strings.ReplaceAll(err.Error(), "--request-ip", "--ip")
	return errors.New(strings.ReplaceAll(s, "--", flag))
}

// names lists the options, without the engine's own.
func names[T any](opts map[string]T) string {
	all := slices.DeleteFunc(slices.Sorted(maps.Keys(opts)), func(s string) bool { return strings.HasPrefix(s, "com.docker.") })
	return strings.Join(all, ", ")
}

func clientIDScheme(n *Network, v string) error {
	if v != "mac" && v != "duid" && v != "identity" {
		return errors.New("one client identifier for all containers would give them one address: give mac, duid or identity; one of a container's own is --driver-opt client-id=")
	}
	n.ClientID = v
	return nil
}

func number(v string, to *int) (err error) {
	if *to, err = strconv.Atoi(v); err != nil {
		return errors.New("not a number")
	}
	return nil
}

// prefix takes what the engine puts a number behind: 15 bytes in all.
func prefix(n *Network, v string) error {
	bad := strings.IndexFunc(v, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) >= 0
	if v == "" || len(v) > 11 || bad || strings.Trim(v, "0123456789.") == "" {
		return errors.New("give 1 to 11 letters, digits, hyphens, dots or underscores; the engine puts a number behind them")
	}
	n.Prefix = v
	return nil
}
