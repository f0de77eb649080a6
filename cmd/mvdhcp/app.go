// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

const (
	defaultSocket   = "/run/mvdhcp/mvdhcp.sock"
	defaultStateDir = "/var/lib/mvdhcp"
)

// run does what args say and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	return report(ctx, stderr, err)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "mvdhcp",
		Usage:     "macvlan children with leases of the VLAN's own DHCP server",
		Writer:    stdout,
		ErrWriter: stderr,
		Flags: []cli.Flag{&cli.StringFlag{
			Name:        "socket",
			Usage:       "the keeper's `SOCKET`; without it $MVDHCP_SOCKET counts",
			Value:       fromEnv("MVDHCP_SOCKET", defaultSocket),
			DefaultText: defaultSocket,
		}},
		Commands: []*cli.Command{
			serveCommand(), attachCommand(), detachCommand(), leasesCommand(), renewCommand(), releaseCommand(),
			probeCommand(), eventsCommand(), statusCommand(), versionCommand(), completionCommand(), completeCommand(),
		},
		CustomAppHelpTemplate: appHelp,
		Action:                noCommand,
		OnUsageError:          badFlag,
		ExitErrHandler:        func(*cli.Context, error) {}, // report does it
	}
	for _, c := range app.Commands {
		c.CustomHelpTemplate = commandHelp
		c.HideHelpCommand = true // "help" after a command is a target
		c.OnUsageError = badFlag
	}
	return app
}

// noCommand answers a command line that names none.
func noCommand(c *cli.Context) error {
	c.App.Writer = c.App.ErrWriter
	if err := cli.ShowAppHelp(c); err != nil {
		return err
	}
	return usage("no command: see above")
}

// jsonFlag is there wherever something is printed.
func jsonFlag() cli.Flag { return boolFlag("json", "print JSON") }

func boolFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, DisableDefaultText: true}
}

func client(c *cli.Context) *api.Client { return api.NewClient(socketPath(c)) }

// socketPath is absolute, for a keeper that is started elsewhere.
func socketPath(c *cli.Context) string {
	p := c.String("socket")
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

// fromEnv takes an empty variable for one that is not set.
func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
