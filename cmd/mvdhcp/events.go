// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "print what happens to leases, as it happens",
		UsageText: "mvdhcp events [--json]",
		Description: describeCommand(`
			Prints a line for each event from now on: bound, renewed, rebound, changed, nak,
			conflict, expired, released, parent-down, parent-up and others. Ctrl-C ends it.
			With --json each line is a JSON object.`,
			"mvdhcp events",
			"mvdhcp events --json | jq 'select(.event==\"changed\")'"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: events,
	}
}

func events(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	return client(c).Events(c.Context, func() error { return nil }, func(e api.Event) error {
		if c.Bool("json") {
			return printJSONLine(c.App.Writer, e)
		}
		_, err := fmt.Fprintln(c.App.Writer, eventLine(e))
		return err
	})
}

// eventLine is: time, kind, identity, where, address, server, changes, message.
func eventLine(e api.Event) string {
	words := []string{e.Time.Local().Format(time.DateTime), fmt.Sprintf("%-11s", clean(e.Kind))}
	add := func(prefix, s string) {
		if s = clean(s); s != "" {
			words = append(words, prefix+s)
		}
	}
	add("", e.Identity)
	if e.Ifname != "" {
		add("", where(e.Ifname, e.Target))
	}
	add("", e.Address)
	add("from ", e.Server)
	add("on ", e.Parent)
	if c := changed(e); c != "" {
		words = append(words, c)
	}
	line := strings.Join(words, " ")
	if e.Message != "" {
		line += ": " + clean(e.Message)
	}
	return line
}

// changed lists old and new values by field.
func changed(e api.Event) string {
	fields := slices.Collect(maps.Keys(e.Old))
	for f := range e.New {
		if _, ok := e.Old[f]; !ok {
			fields = append(fields, f)
		}
	}
	slices.Sort(fields)
	for i, f := range fields {
		fields[i] = fmt.Sprintf("%s %s → %s", clean(f), orNone(e.Old[f]), orNone(e.New[f]))
	}
	if len(fields) == 0 {
		return ""
	}
	return "(" + strings.Join(fields, ", ") + ")"
}

func orNone(s string) string {
	if s = clean(s); s == "" {
		return "none"
	}
	return s
}
