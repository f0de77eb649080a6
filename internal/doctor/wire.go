// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/probe"
	"mvdhcp/provision"
)

// onlyOwnMAC is what is said when a server answers the host and not a child.
const (
	snoopWhy = "something between host and server lets only the host's own MAC pass: a hypervisor's switch that forbids forged transmits or further MACs, port security, or DHCP snooping"
	snoopFix = "vSphere: set \"Forged transmits\" and \"MAC address changes\" of the port group to Accept; Hyper-V: Set-VMNetworkAdapter -MacAddressSpoofing On; a switch: raise the port's limit of MACs"
	localWhy = "macvlan keeps a parent apart from its children, so they can't reach a server on the host itself"
	localFix = "run the DHCP server on another machine, or in a container attached to the LAN"
)

// servers asks who serves DHCP, as a child and, when nobody answers that, as the
// host.
func (x *examination) servers(ctx context.Context) {
	const check = "dhcp"
	q := probe.Question{Kernel: x.Kernel, Log: x.Log, Parent: x.Parent, Window: x.Window, Patience: x.Patience, Progress: x.Progress}
	offers, _, err := probe.FromChild(ctx, q)
	local := localServer()
	switch {
	case err != nil:
		x.add(Finding{check, Problem, err.Error(), "without a DHCP server's answer there is no lease", ""})
	case len(offers) > 0:
		x.offers(offers)
		if local != "" {
			x.add(Finding{"dhcp-on-host", Note, local + " serves DHCP on this host", localWhy + "; another server does answer them", ""})
		}
	case x.answersHost(ctx, q):
		x.add(Finding{"snooping", Problem, "a DHCP server answers the MAC of " + x.Parent + " itself, and none answers a child's", snoopWhy, snoopFix})
	case local != "":
		x.add(Finding{"dhcp-on-host", Problem, local + " serves DHCP on this host, and no other server answers", localWhy, localFix})
	default:
		x.add(Finding{check, Problem, fmt.Sprintf("no DHCP server answers on %s within %v, neither a child nor the host", x.Parent, x.Window+x.Patience),
			"wrong VLAN, a trunk that does not carry it, a relay that is missing, or a server that is down or out of addresses", "tcpdump -eni " + x.Parent + " port 67 or port 68"})
	}
}

func (x *examination) answersHost(ctx context.Context, q probe.Question) bool {
	x.Progress("no answer: asking with the host's own MAC")
	offers, err := probe.FromParent(ctx, q)
	return err == nil && len(offers) > 0
}

// offers judges what was offered: servers that differ are rogue or badly set up.
func (x *examination) offers(offers []dhcpclient.Offer) {
	const check = "dhcp"
	var each []string
	agree := true
	for _, o := range offers {
		each = append(each, fmt.Sprintf("%v (%v) offers %v via %v, lease %v", o.Server, o.FromMAC, o.Address, o.Router, o.Lease))
		agree = agree && o.Address.Masked() == offers[0].Address.Masked() && o.Router == offers[0].Router
	}
	what := strings.Join(each, "; ")
	switch {
	case len(offers) == 1:
		x.ok(check, "%s", what)
	case agree:
		x.add(Finding{check, Note, fmt.Sprintf("%d DHCP servers, of one mind: %s", len(offers), what), "a pair of servers is usual; each must know the other's leases", ""})
	default:
		x.add(Finding{"rogue-server", Warning, fmt.Sprintf("%d DHCP servers that differ: %s", len(offers), what), "the first answer counts: with a rogue server containers come into the wrong network",
			fmt.Sprintf("mvdhcp attach … --allow-server %v", offers[0].Server)})
	}
	for _, o := range offers {
		if o.Lease < time.Minute {
			x.add(Finding{"lease-time", Note, fmt.Sprintf("%v grants leases of %v", o.Server, o.Lease), "each is renewed after half of that: much traffic, and little time to survive a restart of the server", ""})
		}
	}
}

// likelyFor bounds what Likely does on the wire.
const likelyFor = 600 * time.Millisecond

// Likely says in a few words why a child of the parent got no answer within
// waited, "" when nothing points at a cause. It takes at most 0.7 s.
func Likely(ctx context.Context, k *provision.Kernel, log *slog.Logger, parent string, waited time.Duration) string {
	p, err := k.Parent(parent)
	switch {
	case err != nil:
		return parent + " is gone"
	case !p.Carrier:
		return parent + " has no carrier: " + carrierFix(parent)
	}
	ctx, cancel := context.WithTimeout(ctx, likelyFor)
	defer cancel()
	offers, err := probe.FromParent(ctx, probe.Question{Kernel: k, Log: log, Parent: parent, Window: likelyFor})
	if err == nil && len(offers) > 0 {
		if waited < likelyFor { // the child may have had an answer by now
			return fmt.Sprintf("the server %v answers, but not that fast: give a longer --timeout", offers[0].Server)
		}
		return fmt.Sprintf("the server %v answers the host's own MAC, but not a child's: %s", offers[0].Server, snoopWhy)
	}
	if local := localServer(); local != "" {
		return local + " serves DHCP on this host: " + localWhy
	}
	return ""
}
