// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Pool is an address pool: what --ipam-opt said, and the subnet. Its id is the
// pool itself, encoded, so that no pool has to be remembered.
type Pool struct {
	Subnet       netip.Prefix  `json:"subnet"`
	Parent       string        `json:"parent"`
	Mode         string        `json:"mode,omitempty"`
	ClientID     string        `json:"client_id,omitempty"` // one of clientIDs; "": auto
	VendorClass  string        `json:"vendor_class,omitempty"`
	UserClass    string        `json:"user_class,omitempty"`
	NoHostname   bool          `json:"no_hostname,omitempty"`
	Allow        []string      `json:"allow,omitempty"`
	Deny         []string      `json:"deny,omitempty"`
	Conflict     string        `json:"conflict,omitempty"`
	Timeout      time.Duration `json:"timeout"`
	ReleaseDelay time.Duration `json:"release_delay"`
}

// Defaults of a pool's options. The engine repeats a call that takes longer
// than its client's patience, so an exchange must end well before that.
const (
	defaultTimeout      = 10 * time.Second
	defaultReleaseDelay = 5 * time.Second
	minTimeout          = time.Second
	maxTimeout          = 10 * time.Minute
	maxReleaseDelay     = 10 * 365 * 24 * time.Hour
)

// The schemes of client identifiers (option 61). One text for all containers of
// a network would give them all one address, so there is none.
const (
	clientIDAuto    = "auto"    // name where the engine tells it, else mac
	clientIDMAC     = "mac"     // 01 and the MAC
	clientIDName    = "name"    // of this host, parent, subnet and container name
	clientIDCluster = "cluster" // of subnet and container name: the same on every host
	clientIDDUID    = "duid"    // RFC 4361
)

var clientIDs = []string{clientIDAuto, clientIDMAC, clientIDName, clientIDCluster, clientIDDUID}

// poolOptions are the options of --ipam-opt.
var poolOptions = []string{"parent", "mode", "client-id", "vendor-class", "user-class", "hostname", "allow-server", "deny-server", "conflict-check", "timeout", "release-delay"}

// parsePool reads the options of a RequestPool call.
func parsePool(subnet string, opts map[string]string) (p Pool, err error) {
	p = Pool{Timeout: defaultTimeout, ReleaseDelay: defaultReleaseDelay}
	if subnet != "" {
		if p.Subnet, err = netip.ParsePrefix(subnet); err != nil || !p.Subnet.Addr().Is4() {
			return p, fmt.Errorf("--subnet %s: not an IPv4 subnet: give the VLAN's, such as 192.0.2.0/24", subnet)
		}
		if p.Subnet.Bits() == 0 || p.Subnet.Bits() > 30 {
			return p, fmt.Errorf("--subnet %s: no container can have an address there: give the VLAN's, such as 192.0.2.0/24", subnet)
		}
		p.Subnet = p.Subnet.Masked()
	}
	for _, name := range slices.Sorted(maps.Keys(opts)) { // the same error each time
		v := opts[name]
		switch name {
		case "parent":
			p.Parent = v
		case "mode":
			p.Mode = v
		case "client-id":
			if !slices.Contains(clientIDs, v) {
				err = fmt.Errorf("give one of %s", strings.Join(clientIDs, ", "))
			}
			p.ClientID = v
		case "vendor-class":
			p.VendorClass = v
		case "user-class":
			p.UserClass = v
		case "hostname":
			err = readOnOff(v, &p.NoHostname)
		case "allow-server":
			p.Allow = strings.Split(v, ",")
		case "deny-server":
			p.Deny = strings.Split(v, ",")
		case "conflict-check":
			p.Conflict = v
		case "timeout":
			err = readTimeout(v, maxTimeout, &p.Timeout)
		case "release-delay":
			err = readReleaseDelay(v, maxReleaseDelay, &p.ReleaseDelay)
		default:
			if strings.HasPrefix(name, "com.docker.") {
				continue
			}
			return p, fmt.Errorf("--ipam-opt %s is unknown: mvdhcp takes %s", name, strings.Join(poolOptions, ", "))
		}
		if err != nil {
			return p, fmt.Errorf("--ipam-opt %s=%s: %w", name, v, err)
		}
	}
	if p.Parent == "" {
		return p, errors.New("no parent: give --ipam-opt parent=IF, the same IF as -o parent=IF; Compose v2 passes no IPAM options on: start the keeper with --docker-parent IF")
	}
	return p, nil
}

// withParent are a pool's options with a parent where they have none.
func withParent(opts map[string]string, parent string) map[string]string {
	if opts["parent"] != "" || parent == "" {
		return opts
	}
	with := map[string]string{"parent": parent}
	for name, v := range opts {
		if name != "parent" {
			with[name] = v
		}
	}
	return with
}

// id is the pool, encoded.
func (p *Pool) id() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // plain values only
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodePool reads an id that this program gave out.
func decodePool(id string) (p Pool, err error) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil || p.Parent == "" || len(p.Parent) > 15 || !p.Subnet.IsValid() || !p.Subnet.Addr().Is4() || p.Timeout < minTimeout || p.Timeout > maxTimeout {
		return p, fmt.Errorf("pool %.40q is not one of mvdhcp's: create the network anew", id)
	}
	return p, nil
}

func (p *Pool) options() Options {
	return Options{
		Parent: p.Parent, Mode: p.Mode, VendorClass: p.VendorClass, UserClass: p.UserClass,
		AllowServers: p.Allow, DenyServers: p.Deny, ConflictCheck: p.Conflict, Timeout: p.Timeout,
	}
}
