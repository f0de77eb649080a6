// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func hostLinkCommand() *cli.Command {
	return &cli.Command{
		Name:      "host-link",
		Usage:     "let the host and the children of a parent reach each other",
		UsageText: "mvdhcp host-link --parent IF [FLAGS]",
		Description: describeCommand(`
			macvlan keeps a parent apart from its children: the host can't reach its own
			containers. This makes a child of the host's own, with a lease or the address
			given, and keeps a route through it to each address leased on the parent. The
			host's other routes are left alone. The containers reach the host at the link's
			address. Doing it again changes nothing; --remove takes all of it away.`,
			"mvdhcp host-link --parent ens192.100",
			"mvdhcp host-link --parent ens192.100 --address 10.0.0.9",
			"mvdhcp host-link --parent ens192.100 --remove"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "parent", Usage: "link the host to the children of `IF`"},
			boolFlag("remove", "take the parent's host link and its routes away"),
			&cli.StringFlag{Name: "address", Usage: "give the link `ADDR` and ask no server", DefaultText: "a lease"},
			&cli.StringFlag{Name: "ifname", Usage: "call the link `NAME`", DefaultText: "mvh- and the parent"},
			&cli.StringFlag{Name: "mac", Usage: "the link's `MAC`", DefaultText: "derived from the parent"},
			&cli.StringFlag{Name: "client-id", Usage: "DHCP client identifier `ID`: text, hex:BYTES, 0xBYTES or duid", DefaultText: "01 and the MAC"},
			&cli.StringFlag{Name: "hostname", Usage: "tell the server this host `NAME`", DefaultText: "none"},
			&cli.StringFlag{Name: "conflict-check", Usage: "look for others with the address in this `WAY`: " + strings.Join(api.ConflictChecks, ", "), Value: api.ConflictChecks[0]},
			&cli.DurationFlag{Name: "timeout", Usage: "give up after `TIME`", Value: api.DefaultTimeout},
			boolFlag("no-start", "do not start a keeper when none runs"),
			jsonFlag(),
		},
		Action: hostLink,
	}
}

func hostLink(c *cli.Context) error {
	req := api.HostLinkRequest{
		Parent:        c.String("parent"),
		Remove:        c.Bool("remove"),
		Address:       c.String("address"),
		Ifname:        c.String("ifname"),
		MAC:           c.String("mac"),
		ClientID:      c.String("client-id"),
		Hostname:      c.String("hostname"),
		ConflictCheck: c.String("conflict-check"),
		Timeout:       c.Duration("timeout"),
	}
	if err := noArgument(c); err != nil {
		return err
	}
	if err := explicitZero(c, "timeout"); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return inCommand(c, err)
	}
	show := startProgress(c.App.ErrWriter, req.Parent)
	defer show.end()
	cl := client(c)
	lease, err := cl.HostLink(c.Context, req, show.say)
	if api.NotRunning(err) && !c.Bool("no-start") && !req.Remove {
		var started string
		if started, err = startKeeper(c.Context, cl, socketPath(c), show.say); err != nil {
			return err
		}
		if started != "" {
			show.note("mvdhcp: " + started)
		}
		lease, err = cl.HostLink(c.Context, req, show.say)
	}
	show.end()
	switch {
	case err != nil:
		return err
	case c.Bool("json"):
		return printJSON(c.App.Writer, lease)
	case req.Remove:
		_, err = fmt.Fprintf(c.App.Writer, "%s: %s is gone, and its routes\n", clean(lease.Identity), clean(lease.Ifname))
	default:
		_, err = fmt.Fprintln(c.App.Writer, describe(lease, time.Now()))
	}
	return err
}
