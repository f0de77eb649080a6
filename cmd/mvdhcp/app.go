// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

const (
	defaultSocket   = "/run/mvdhcp/mvdhcp.sock"
	defaultStateDir = "/var/lib/mvdhcp"
)

// run does what args say and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := appFor(args, stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	return report(ctx, stderr, err)
}

// commands make the commands by their names, in the order of the help.
var commands = []struct {
	name    string
	command func() *cli.Command
}{
	{"serve", serveCommand},
	{"attach", attachCommand},
	{"detach", detachCommand},
	{"leases", leasesCommand},
	{"renew", renewCommand},
	{"release", releaseCommand},
	{"host-link", hostLinkCommand},
	{"probe", probeCommand},
	{"doctor", doctorCommand},
	{"events", eventsCommand},
	{"status", statusCommand},
	{"version", versionCommand},
	{"completion", completionCommand},
	{completeName, completeCommand},
}

func newApp(stdout, stderr io.Writer) *cli.App {
	all := make([]*cli.Command, 0, len(commands))
	for _, c := range commands {
		all = append(all, c.command())
	}
	return appOf(all, stdout, stderr)
}

// appFor is newApp with nothing but the command that args begin with, where they
// do: making all of them is a good part of what a command takes by itself.
// Completion is of all commands.
func appFor(args []string, stdout, stderr io.Writer) *cli.App {
	words := args[min(len(args), 1):]
	for len(words) > 1 && strings.TrimLeft(words[0], "-") == "socket" && words[0] != "socket" {
		words = words[2:]
	}
	for _, c := range commands {
		if len(words) > 0 && words[0] == c.name && c.name != completeName {
			return appOf([]*cli.Command{c.command()}, stdout, stderr)
		}
	}
	return newApp(stdout, stderr)
}

func appOf(only []*cli.Command, stdout, stderr io.Writer) *cli.App {
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
		Commands:              only,
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
