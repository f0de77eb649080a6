// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// endpointOptions are what --driver-opt says of one container's interface.
type endpointOptions struct {
	ip                           netip.Addr
	hostname, clientID, identity string
	routes                       string
	metric, mtu                  int
}

var driverOptions = map[string]func(r *Options, v string) error{
	"ip":        func(r *Options, v string) error { r.RequestIP = v; return nil },
	"hostname":  func(r *Options, v string) error { r.Hostname = v; return nil },
	"client-id": func(r *Options, v string) error { r.ClientID = v; return nil },
	"identity":  func(r *Options, v string) error { r.Identity = v; return nil },
	"routes":    func(r *Options, v string) error { r.Routes = v; return nil },
	"metric":    func(r *Options, v string) error { return number(v, &r.Metric) },
	"mtu":       func(r *Options, v string) error { return number(v, &r.MTU) },
}

// parseEndpoint reads the options of CreateEndpoint and has them judged; the
// engine's own are among them.
func parseEndpoint(opts map[string]any, judge func(Options) error) (o endpointOptions, err error) {
	r := Options{Parent: "lo"}
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		if strings.HasPrefix(name, "com.docker.") {
			continue
		}
		set := driverOptions[name]
		v, ok := opts[name].(string)
		switch {
		case set == nil:
			return o, fmt.Errorf("--driver-opt %s is unknown: mvdhcp takes %s", name, names(driverOptions))
		case !ok || v == "":
			return o, fmt.Errorf("--driver-opt %s: give a value", name)
		}
		if err := set(&r, v); err != nil {
			return o, fmt.Errorf("--driver-opt %s=%s: %w", name, v, err)
		}
	}
	if err := asOption("--driver-opt ", judge(r)); err != nil {
		return o, err
	}
	o = endpointOptions{hostname: r.Hostname, clientID: r.ClientID, identity: r.Identity, routes: r.Routes, metric: r.Metric, mtu: r.MTU}
	if r.RequestIP != "" {
		o.ip, err = netip.ParseAddr(r.RequestIP)
	}
	return o, err
}

// needsDHCP names an option that only counts before the exchange.
func (o *endpointOptions) needsDHCP() string {
	switch {
	case o.ip.IsValid():
		return "ip"
	case o.hostname != "":
		return "hostname"
	case o.clientID != "":
		return "client-id"
	case o.identity != "":
		return "identity"
	}
	return ""
}
