// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/dhcpclient/wire"
	"mvdhcp/internal/api"
	"mvdhcp/internal/doctor"
	dhcpprobe "mvdhcp/internal/probe"
	"mvdhcp/provision"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "say what will go wrong on a parent before it does",
		UsageText: "mvdhcp doctor --parent IF [FLAGS]",
		Description: describeCommand(`
			Looks at the kernel, the parent and its children, the host's settings, who
			serves DHCP and to whom, the state directory, the keeper and the Docker
			engine. Each finding says what, why it matters, and what mends it. It takes no
			lease and changes nothing. Exit status 1 when there is a problem.`,
			"mvdhcp doctor --parent ens192.100"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "parent", Usage: "examine `IF` or IF.VID"},
			&cli.DurationFlag{Name: "window", Usage: "wait `TIME` for DHCP servers", Value: api.DefaultWindow, DefaultText: "2s, and 3s more while none has answered"},
			&cli.StringFlag{Name: "state-dir", Usage: "the keeper's state `DIR`", Value: fromEnv("MVDHCP_STATE_DIR", defaultStateDir), DefaultText: defaultStateDir},
			jsonFlag(),
		},
		Action: examine,
	}
}

func examine(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	if err := explicitZero(c, "window"); err != nil {
		return err
	}
	ask := api.ProbeRequest{Parent: c.String("parent"), Window: c.Duration("window")}
	if err := ask.Validate(); err != nil {
		return inCommand(c, err)
	}
	if err := needRoot("mvdhcp doctor"); err != nil {
		return err
	}
	dir, err := filepath.Abs(c.String("state-dir"))
	if err != nil {
		return err
	}
	kernel, err := provision.NewKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	var patience time.Duration
	if !c.IsSet("window") {
		patience = dhcpprobe.Patience
	}
	show := startProgress(c.App.ErrWriter, ask.Parent)
	defer show.end()
	r := doctor.Examine(c.Context, doctor.Options{
		Kernel: kernel, Log: slog.New(slog.DiscardHandler), Parent: ask.Parent, StateDir: dir, Socket: socketPath(c),
		DockerHost: os.Getenv("DOCKER_HOST"), Version: version(), Window: ask.Window, Patience: patience, Progress: show.say,
	})
	show.end()
	// The kernel takes its time to close packet sockets.
	flush, cancel := context.WithTimeout(c.Context, time.Second)
	defer cancel()
	_ = wire.Flush(flush)
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		err = printFindings(c.App.Writer, r.Findings)
	}
	problems := 0
	for _, f := range r.Findings {
		if f.Level == doctor.Problem {
			problems++
		}
	}
	if err == nil && problems > 0 {
		err = fmt.Errorf("doctor %s: problems found: %d", r.Parent, problems)
	}
	return err
}

// printFindings writes a line for each finding, and under it why and what to do.
func printFindings(w io.Writer, fs []doctor.Finding) error {
	for _, f := range fs {
		if _, err := fmt.Fprintf(w, "%-8s %-13s %s\n", f.Level, f.Check, clean(f.What)); err != nil {
			return err
		}
		for _, more := range []struct{ name, text string }{{"why", f.Why}, {"fix", f.Fix}} {
			if more.text == "" {
				continue
			}
			if _, err := fmt.Fprintf(w, "%22s %s: %s\n", "", more.name, clean(more.text)); err != nil {
				return err
			}
		}
	}
	return nil
}
