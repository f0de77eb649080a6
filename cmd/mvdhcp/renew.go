// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func renewCommand() *cli.Command {
	return &cli.Command{
		Name:      "renew",
		Usage:     "renew leases now",
		UsageText: "mvdhcp renew LEASE|TARGET [--json]",
		Description: describeCommand(`
			Asks the DHCP server to extend the leases that LEASE (an id, identity, address
			or MAC) or TARGET names, without waiting for their time to renew.`,
			"mvdhcp renew web"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: renew,
	}
}

func renew(c *cli.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	ls, err := client(c).Renew(c.Context, q)
	if err != nil {
		return err
	}
	if len(ls) == 0 {
		return noSuchLease(c, q)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, ls)
	}
	for _, l := range ls {
		if _, err := fmt.Fprintln(c.App.Writer, describe(l, time.Now())); err != nil {
			return err
		}
	}
	return nil
}

// query reads the LEASE|TARGET that a command needs.
func query(c *cli.Context) (string, error) {
	q, err := argument(c, "LEASE|TARGET")
	if err != nil {
		return "", err
	}
	return q, inCommand(c, api.ValidateQuery(q))
}

func noSuchLease(c *cli.Context, q string) error {
	return fmt.Errorf("%s: no lease matches %q: see mvdhcp leases", c.Command.Name, q)
}
