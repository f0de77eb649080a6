// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func leasesCommand() *cli.Command {
	return &cli.Command{
		Name:      "leases",
		Usage:     "list leases",
		UsageText: "mvdhcp leases [LEASE|TARGET] [--all] [--watch] [--json]",
		Description: describeCommand(`
			Lists the leases of this host, or those that LEASE (an id, identity, address or
			MAC) or TARGET names. A state with ",parent-down" or ",parent-missing" behind it
			is of a lease that can't be renewed until its parent is back; "kept,waiting" is a
			stopped container's, attached again when it starts. With --watch the list is kept
			up to date on a terminal; elsewhere each change prints a line.`,
			"mvdhcp leases",
			"mvdhcp leases --json web",
			"mvdhcp leases --all | grep ens192.100"),
		Flags: []cli.Flag{
			boolFlag("all", "also leases that ended within the last day"),
			boolFlag("watch", "go on and show changes; Ctrl-C ends it"),
			jsonFlag(),
		},
		Action: leases,
	}
}

func leases(c *cli.Context) error {
	q, err := optional(c)
	if err != nil {
		return err
	}
	if err := api.ValidateQuery(q); err != nil {
		return inCommand(c, err)
	}
	ls, err := listLeases(c, q)
	if err != nil {
		return err
	}
	switch {
	case len(ls) == 0 && q != "":
		return noSuchLease(c, q)
	case c.Bool("watch"):
		return watch(c, q, ls)
	case c.Bool("json"):
		return printJSON(c.App.Writer, ls)
	}
	now := time.Now()
	rows := make([][]string, len(ls))
	for i, l := range ls {
		rows[i] = leaseRow(l, now)
	}
	return new(table).print(c.App.Writer, leaseHeader, rows)
}

// listLeases returns the leases in the order they are shown in.
func listLeases(c *cli.Context, q string) ([]api.Lease, error) {
	ls, err := client(c).Leases(c.Context, q, c.Bool("all"))
	slices.SortStableFunc(ls, func(a, b api.Lease) int {
		return cmp.Or(cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Ifname, b.Ifname), a.EndedAt.Compare(b.EndedAt), cmp.Compare(a.ID, b.ID))
	})
	return ls, err
}

var leaseHeader = []string{"IDENTITY", "STATE", "ADDRESS", "MAC", "PARENT", "WHERE", "EXPIRES"}

// leaseRow has one word in each cell but the last.
func leaseRow(l api.Lease, now time.Time) []string {
	state := l.State
	if l.Waiting {
		state += ",waiting"
	}
	if l.ParentState != "" && l.ParentState != "up" {
		state += ",parent-" + l.ParentState
	}
	place := where(l.Ifname, l.Target)
	if l.Network != "" {
		place += "(" + clean(l.Network) + ")"
	}
	return []string{word(l.Identity), word(state), word(l.Address), word(l.MAC), word(l.Parent), word(place), expiry(l, now)}
}

func expiry(l api.Lease, now time.Time) string {
	var s string
	switch {
	case !l.EndedAt.IsZero():
		s = "ended " + span(now.Sub(l.EndedAt)) + " ago"
		if l.EndReason != "" {
			s += ": " + clean(l.EndReason)
		}
		return s
	case isForever(l.LeaseSeconds):
		s = "never"
	case l.ExpiresAt.IsZero():
	case l.ExpiresAt.After(now):
		s = span(l.ExpiresAt.Sub(now))
	default:
		s = "expired"
	}
	if l.LastError != "" {
		s = cmp.Or(s, "-") + " (" + clean(l.LastError) + ")"
	}
	return s
}
