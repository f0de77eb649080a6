// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"strings"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// AliasPrefix begins the alias (IFLA_IFALIAS) of every child a keeper made.
const AliasPrefix = "mvdhcp lease "

// aliasOf is what a child says of its lease, so that it can be found again
// without the store: "mvdhcp lease ID PARENT IDENTITY", at most 255 bytes.
func aliasOf(r *Record) string {
	s := AliasPrefix + r.ID + " " + r.Spec.Parent + " " + r.Spec.Identity
	return s[:min(len(s), 255)]
}

// RecordOf rebuilds a lease's record from its child: what the alias and the
// address on it tell. The rest takes its defaults. ok is false when the child
// says too little.
func RecordOf(ns provision.Namespace, target Target, c provision.Child, mode provision.Mode, alias string, b dhcpclient.Binding) (r Record, ok bool) {
	rest, ok := strings.CutPrefix(alias, AliasPrefix)
	f := strings.SplitN(rest, " ", 3)
	if !ok || len(f) != 3 {
		return r, false
	}
	r = Record{
		ID: f[0], Target: target, NS: ns, Child: c, State: InitReboot, Established: true, Binding: &b,
		Spec: Spec{
			Identity: f[2], Parent: f[1], Ifname: c.Name, Mode: mode, MAC: c.MAC,
			ClientID: append([]byte{1}, c.MAC...), Routes: RoutesAll, Conflict: dhcpclient.ConflictFast,
		},
	}
	if target.Kind == TargetHost {
		r.Target.Name = HostTarget(r.Spec.Parent)
		r.Spec.Routes = RoutesNone
		if b.Lease == dhcpclient.Infinite {
			r.Spec.Static = b.Address.Addr()
		}
	}
	return r, r.check() == nil
}
