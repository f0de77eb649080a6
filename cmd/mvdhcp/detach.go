// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func detachCommand() *cli.Command {
	return &cli.Command{
		Name:      "detach",
		Usage:     "take a target's children away and give their leases back",
		UsageText: "mvdhcp detach TARGET [FLAGS]",
		Description: describeCommand(`
			Releases the leases of TARGET at their DHCP servers, takes its children away
			and forgets the leases. With --keep-lease they are left to expire, and the next
			attach of the same identity takes them up again.`,
			"mvdhcp detach web",
			"mvdhcp detach netns:blue --ifname eth1 --keep-lease"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ifname", Usage: "only the child called `NAME`", DefaultText: "all of the target's"},
			boolFlag("keep-lease", "release nothing: keep the leases for the next attach"),
			jsonFlag(),
		},
		Action: detach,
	}
}

func detach(c *cli.Context) error {
	target, err := argument(c, "TARGET")
	if err != nil {
		return err
	}
	req := api.DetachRequest{Target: target, Ifname: c.String("ifname"), KeepLease: c.Bool("keep-lease"), DockerHost: os.Getenv("DOCKER_HOST")}
	if err := req.Validate(); err != nil {
		return inCommand(c, err)
	}
	ls, err := client(c).Detach(c.Context, req)
	if err != nil {
		return err
	}
	if len(ls) == 0 {
		return fmt.Errorf("detach %s: nothing of it is attached: see mvdhcp leases", target)
	}
	return printEnded(c, ls, req.KeepLease)
}

// printEnded says what became of leases that were given up.
func printEnded(c *cli.Context, ls []api.Lease, kept bool) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, ls)
	}
	for _, l := range ls {
		line := clean(l.Identity) + ": " + clean(l.Ifname)
		if l.Address != "" {
			line += " " + clean(l.Address)
		}
		switch {
		case !kept:
			line += " released"
		case isForever(l.LeaseSeconds):
			line += " detached, lease kept for ever"
		case l.ExpiresAt.IsZero():
			line += " detached, lease kept"
		default:
			line += " detached, lease kept for " + span(time.Until(l.ExpiresAt.Time))
		}
		if _, err := fmt.Fprintln(c.App.Writer, line); err != nil {
			return err
		}
	}
	return nil
}
