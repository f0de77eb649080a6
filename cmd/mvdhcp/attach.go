// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

// undoWait bounds the release of a lease that came when nobody wanted it.
const undoWait = 10 * time.Second

func attachCommand() *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "put a container, process or namespace on the LAN",
		UsageText: "mvdhcp attach TARGET --parent IF [FLAGS]",
		Description: describeCommand(`
			Makes a macvlan child of the parent in TARGET's network namespace, gets it an
			address from the DHCP server of the parent's network, and hands the lease to
			the keeper. A container stays attached when it stops and starts again, until it
			is detached or removed. A keeper that does not run is started in the background.
			Ctrl-C while it waits undoes all of it, with exit status 130; a second Ctrl-C
			leaves the undoing to the keeper.`,
			"mvdhcp attach web --parent ens192.100",
			"mvdhcp attach netns:blue --parent eth0 --hostname blue --request-ip 10.0.0.57",
			"web: eth0 10.0.0.57/24 via 10.0.0.1, lease 12h from 10.0.0.1, renews in 6h"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "parent", Usage: "attach to `IF`, an interface, or to IF.VID, a VLAN of it, which is made when missing"},
			&cli.StringFlag{Name: "ifname", Usage: "call the child `NAME`", DefaultText: "eth0, or the next that is free"},
			&cli.StringFlag{Name: "mode", Usage: "macvlan `MODE`: " + strings.Join(api.Modes, ", "), Value: api.Modes[0]},
			&cli.StringFlag{Name: "identity", Usage: "the `NAME` the lease belongs to; cluster:NAME is the same on every host", DefaultText: "the target's name"},
			&cli.StringFlag{Name: "mac", Usage: "the child's `MAC`", DefaultText: "derived from the identity"},
			&cli.StringFlag{Name: "client-id", Usage: "DHCP client identifier `ID`: text, hex:BYTES, 0xBYTES or duid", DefaultText: "01 and the MAC"},
			&cli.StringFlag{Name: "hostname", Usage: "tell the server this host `NAME`", DefaultText: "the container's"},
			boolFlag("no-hostname", "tell the server no host name"),
			&cli.StringFlag{Name: "request-ip", Usage: "take no other address than `ADDR`"},
			&cli.StringFlag{Name: "vendor-class", Usage: "send `TEXT` as vendor class (option 60)"},
			&cli.StringFlag{Name: "user-class", Usage: "send `TEXT` as user class (option 77)"},
			&cli.IntFlag{Name: "metric", Usage: "give the routes metric `N`", DefaultText: "the kernel's, or behind another default route"},
			&cli.StringFlag{Name: "routes", Usage: "put in the lease's `ROUTES`: " + strings.Join(api.RoutePolicies, ", "), Value: api.RoutePolicies[0]},
			boolFlag("dns", "write the lease's name servers to the target's resolv.conf"),
			&cli.IntFlag{Name: "mtu", Usage: "set the child's MTU to `N`, but to no more than the parent's", DefaultText: "the server's, or the parent's"},
			&cli.StringFlag{Name: "conflict-check", Usage: "look for others with the address in this `WAY`: " + strings.Join(api.ConflictChecks, ", "), Value: api.ConflictChecks[0]},
			&cli.StringSliceFlag{Name: "allow-server", Usage: "listen to the DHCP server at `IP` only (may be repeated)"},
			&cli.StringSliceFlag{Name: "deny-server", Usage: "never listen to the DHCP server at `IP` (may be repeated)"},
			&cli.DurationFlag{Name: "timeout", Usage: "give up after `TIME`", Value: api.DefaultTimeout},
			boolFlag("no-start", "do not start a keeper when none runs"),
			jsonFlag(),
		},
		Action: attach,
	}
}

func attach(c *cli.Context) error {
	req, err := attachRequest(c)
	if err != nil {
		return err
	}
	show := startProgress(c.App.ErrWriter, req.Target)
	defer show.end()
	stop := context.AfterFunc(c.Context, func() { show.say("undoing it (Ctrl-C again leaves that to the keeper)") })
	defer stop()
	cl := client(c)
	lease, err := cl.Attach(c.Context, req, show.say)
	if api.NotRunning(err) && !c.Bool("no-start") {
		var started string
		if started, err = startKeeper(c.Context, cl, socketPath(c), show.say); err != nil {
			return err
		}
		if started != "" {
			show.note("mvdhcp: " + started)
		}
		lease, err = cl.Attach(c.Context, req, show.say)
	}
	show.end()
	switch {
	case err == nil && c.Context.Err() != nil:
		return undoLate(c.Context, cl, lease)
	case err != nil:
		return err
	case c.Bool("json"):
		return printJSON(c.App.Writer, lease)
	}
	_, err = fmt.Fprintln(c.App.Writer, describe(lease, time.Now()))
	return err
}

func attachRequest(c *cli.Context) (api.AttachRequest, error) {
	req := api.AttachRequest{
		Target:        c.Args().First(),
		Parent:        c.String("parent"),
		Ifname:        c.String("ifname"),
		Mode:          c.String("mode"),
		Identity:      c.String("identity"),
		MAC:           c.String("mac"),
		ClientID:      c.String("client-id"),
		Hostname:      c.String("hostname"),
		NoHostname:    c.Bool("no-hostname"),
		RequestIP:     c.String("request-ip"),
		VendorClass:   c.String("vendor-class"),
		UserClass:     c.String("user-class"),
		Metric:        c.Int("metric"),
		Routes:        c.String("routes"),
		DNS:           c.Bool("dns"),
		MTU:           c.Int("mtu"),
		ConflictCheck: c.String("conflict-check"),
		AllowServers:  c.StringSlice("allow-server"),
		DenyServers:   c.StringSlice("deny-server"),
		Timeout:       c.Duration("timeout"),
		DockerHost:    os.Getenv("DOCKER_HOST"),
	}
	if _, err := argument(c, "TARGET"); err != nil {
		return req, err
	}
	if err := explicitZero(c, "mtu", "timeout"); err != nil {
		return req, err
	}
	return req, inCommand(c, req.Validate())
}

// inCommand says whose flag an error is about.
func inCommand(c *cli.Context, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", c.Command.Name, err)
}

// undoLate gives a lease back whose answer crossed the interruption.
func undoLate(ctx context.Context, cl *api.Client, l api.Lease) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
	defer cancel()
	if _, err := cl.Release(ctx, l.ID); err != nil {
		return fmt.Errorf("attach %s was called off but not undone: %w", l.Target, err)
	}
	return errors.New("attach " + l.Target + " was called off and undone")
}
