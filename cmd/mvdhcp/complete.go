// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
)

// completeName is the command that completion scripts call with the words of
// the command line up to the cursor, the last of them being completed.
const completeName = "__complete"

// completeTimeout is for all that is asked for one completion, engineTimeout for
// the Docker engine's part: it may accept and never answer while it starts.
const (
	completeTimeout = 2 * time.Second
	engineTimeout   = 500 * time.Millisecond
)

func completeCommand() *cli.Command {
	return &cli.Command{Name: completeName, Hidden: true, HideHelp: true, Action: complete}
}

// complete prints the candidates, one a line. What can't be had it leaves out.
func complete(c *cli.Context) error {
	words := c.Args().Slice()
	if len(words) == 0 {
		words = []string{""}
	}
	ctx, cancel := context.WithTimeout(c.Context, completeTimeout)
	defer cancel()
	l := completionLine{app: c.App, before: words[:len(words)-1], cur: words[len(words)-1]}
	var out []string
	for _, w := range l.candidates(ctx) {
		if strings.HasPrefix(w, l.cur) && w == clean(w) && !strings.Contains(w, " ") {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	for _, w := range slices.Compact(out) {
		if _, err := fmt.Fprintln(c.App.Writer, w); err != nil {
			return err
		}
	}
	return nil
}

// completionLine is a command line whose last word is to be completed.
type completionLine struct {
	app    *cli.App
	before []string
	cur    string
}

func (l completionLine) candidates(ctx context.Context) []string {
	// A word that ends the line makes split take a flag's missing value for one.
	given, words, err := split(l.app, l.before)
	if err != nil { // the last word before is a flag without its value
		last := l.before[len(l.before)-1]
		return l.values(ctx, strings.TrimLeft(last, "-"))
	}
	var cmd *cli.Command
	if len(words) > 0 {
		if cmd = l.app.Command(words[0]); cmd == nil {
			return nil
		}
	}
	if slices.Contains(l.before, "--") {
		return l.arguments(ctx, cmd, words)
	}
	if name, _, ok := strings.Cut(l.cur, "="); ok && strings.HasPrefix(name, "-") {
		return prefixed(name+"=", l.values(ctx, strings.TrimLeft(name, "-")))
	}
	if strings.HasPrefix(l.cur, "-") {
		return l.flags(cmd, given)
	}
	return l.arguments(ctx, cmd, words)
}

// flags leaves out those that stand there already and may stand there once.
func (l completionLine) flags(cmd *cli.Command, there []given) []string {
	all := slices.Clone(l.app.Flags)
	if cmd != nil {
		all = append(all, cmd.Flags...)
	}
	out := []string{"--help"}
	for _, f := range all {
		name := f.Names()[0]
		_, repeats := f.(*cli.StringSliceFlag)
		if repeats || !slices.ContainsFunc(there, func(g given) bool { return g.name == name }) {
			out = append(out, "--"+name)
		}
	}
	return out
}

// values are what a flag takes.
func (l completionLine) values(ctx context.Context, flag string) []string {
	switch flag {
	case "parent":
		return parents()
	case "mode":
		return api.Modes
	case "routes":
		return api.RoutePolicies
	case "conflict-check":
		return api.ConflictChecks
	case "client-id":
		return []string{"duid", "hex:"}
	case "log-level":
		return logLevels
	case "log-format":
		return logFormats
	case "identity":
		return l.leases(ctx, func(x api.Lease) []string { return []string{x.Identity} })
	}
	return nil
}

// arguments are commands, and then what the command takes.
func (l completionLine) arguments(ctx context.Context, cmd *cli.Command, words []string) []string {
	if cmd == nil || cmd.Name == "help" && len(words) == 1 {
		var out []string
		for _, c := range l.app.VisibleCommands() {
			out = append(out, c.Name)
		}
		return out
	}
	if len(words) > 1 {
		return nil
	}
	switch cmd.Name {
	case "attach":
		return append(namespaces(), containers(ctx, l.cur)...)
	case "detach":
		return l.leases(ctx, func(x api.Lease) []string { return []string{x.Target} })
	case "leases", "renew", "release":
		return l.leases(ctx, func(x api.Lease) []string { return []string{x.Identity, x.Target, x.ID} })
	case "completion":
		return shells
	}
	return nil
}

// leases asks the keeper on the socket that the line names.
func (l completionLine) leases(ctx context.Context, names func(api.Lease) []string) []string {
	socket := fromEnv("MVDHCP_SOCKET", defaultSocket)
	given, _, _ := split(l.app, l.before)
	for _, f := range given {
		if f.name == "socket" {
			_, value, ok := strings.Cut(f.tokens[0], "=")
			if !ok && len(f.tokens) == 2 {
				value = f.tokens[1]
			}
			socket = value
		}
	}
	ls, err := api.NewClient(socket).Leases(ctx, "", false)
	if err != nil {
		return nil
	}
	var out []string
	for _, x := range ls {
		out = append(out, names(x)...)
	}
	if !strings.HasPrefix(l.cur, "-") {
		out = slices.DeleteFunc(out, func(s string) bool { return s == "" })
	}
	return out
}

// parents are the host's links but the loopback.
func parents() []string {
	return slices.DeleteFunc(list("/sys/class/net"), func(s string) bool { return s == "lo" })
}

// namespaces are those that ip netns knows (ip-netns(8)).
func namespaces() []string { return prefixed(api.TargetNetNS+":", list("/run/netns")) }

// containers asks the engine; "docker:" is only written where it was begun.
func containers(ctx context.Context, cur string) []string {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	out, err := docker.RunningNames(ctx)
	if err != nil {
		return nil
	}
	if strings.HasPrefix(cur, api.TargetDocker+":") {
		return prefixed(api.TargetDocker+":", out)
	}
	return out
}

func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func prefixed(prefix string, ss []string) []string {
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = prefix + s
	}
	return out
}
