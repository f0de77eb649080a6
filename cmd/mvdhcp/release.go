// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v2"

func releaseCommand() *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give leases back, and take their children away",
		UsageText: "mvdhcp release LEASE|TARGET [--json]",
		Description: describeCommand(`
			Releases the leases that LEASE (an id, identity, address or MAC) or TARGET
			names at their DHCP servers, takes their children away and forgets them.`,
			"mvdhcp release 10.0.0.57"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: release,
	}
}

func release(c *cli.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	ls, err := client(c).Release(c.Context, q)
	if err != nil {
		return err
	}
	if len(ls) == 0 {
		return noSuchLease(c, q)
	}
	return printEnded(c, ls, false)
}
