// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// rebuild finds the children of a lost store in the host's namespaces and hands
// them to the keeper, which verifies their addresses with the server.
func rebuild(k *lease.Keeper, kernel *provision.Kernel, log *slog.Logger) {
	all, err := provision.AllNamespaces()
	if err != nil {
		log.Error("namespaces can't be read", "error", err)
		return
	}
	if host, err := provision.Host(); err == nil {
		all = append(all, host)
	}
	n := 0
	for _, id := range all {
		found, err := children(kernel, id)
		if err != nil && !errors.Is(err, provision.ErrGone) {
			log.Warn("namespace can't be read", "netns", id.Path, "error", err)
		}
		for _, c := range found {
			for _, a := range c.Addresses {
				if !a.Ours || a.Lifetime < time.Second {
					continue
				}
				b := dhcpclient.Binding{Address: a.Prefix, Server: netip.IPv4Unspecified(), Lease: dhcpclient.Infinite}
				if a.Lifetime != provision.Forever {
					b.Lease, b.T1, b.T2 = a.Lifetime, a.Lifetime/2, a.Lifetime*7/8
				}
				if r, ok := lease.RecordOf(id, targetOf(id), c.Child, c.Mode, c.Alias, b); ok {
					k.Adopt(r, a.Lifetime)
					n++
				}
				break
			}
		}
	}
	log.Warn("leases rebuilt from the kernel", "leases", n)
}

func children(kernel *provision.Kernel, id provision.Namespace) ([]provision.FoundChild, error) {
	ns, err := id.Open()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return kernel.Children(ns, lease.AliasPrefix)
}

// targetOf names the target that a namespace's path speaks of.
func targetOf(id provision.Namespace) lease.Target {
	if id.Path == provision.HostPath {
		return lease.Target{Kind: lease.TargetHost}
	}
	var pid int
	if n, _ := fmt.Sscanf(id.Path, "/proc/%d/ns/net", &pid); n == 1 {
		return processTarget(pid)
	}
	if name, ok := strings.CutPrefix(id.Path, netnsDir); ok {
		return lease.Target{Kind: lease.TargetNetNS, Name: "netns:" + name}
	}
	return lease.Target{Kind: lease.TargetNetNS, Name: "netns:" + id.Path}
}
