// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange sorts a command line into what the flag parser takes: global flags,
// the command, its flags, "--", its arguments. So flags may stand before and
// after arguments and the command, and "--" ends them.
func arrange(app *cli.App, args []string) ([]string, error) {
	app.Setup()
	if len(args) > 1 && args[1] == completeName {
		return append([]string{args[0], completeName, "--"}, args[2:]...), nil
	}
	flags, words, err := split(app, args[1:])
	if err != nil {
		return nil, err
	}
	var cmd *cli.Command
	if len(words) > 0 {
		if cmd = app.Command(words[0]); cmd == nil {
			return nil, usage("unknown command %q: see mvdhcp help", words[0])
		}
	}
	if slices.ContainsFunc(flags, func(f given) bool { return f.name == "help" || f.name == "h" }) {
		return append(append([]string{args[0]}, words[:min(len(words), 1)]...), "--help"), nil
	}
	out, own := []string{args[0]}, []string(nil)
	for _, f := range flags {
		switch {
		case cmd != nil && findFlag(cmd.Flags, f.name) != nil:
			own = append(own, f.tokens...)
		case findFlag(app.Flags, f.name) != nil:
			out = append(out, f.tokens...)
		default:
			return nil, unknownFlag(cmd, f.name)
		}
	}
	if cmd == nil {
		return out, nil
	}
	out = append(append(append(out, words[0]), own...), "--")
	return append(out, words[1:]...), nil
}

// given is a flag as it stands on the command line, its value with it.
type given struct {
	name   string
	tokens []string
}

// split tells flags from words. Flags of one name take a value in all commands
// or in none.
func split(app *cli.App, args []string) (flags []given, words []string, err error) {
	known := slices.Clone(app.Flags)
	for _, c := range app.Commands {
		known = append(known, c.Flags...)
	}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return flags, append(words, args[i+1:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			words = append(words, a)
			continue
		}
		name, _, hasValue := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		f := given{name, []string{a}}
		if !hasValue && takesValue(findFlag(known, name)) {
			if i++; i == len(args) {
				return nil, nil, usage("flag --%s needs a value", name)
			}
			f.tokens = append(f.tokens, args[i])
		}
		flags = append(flags, f)
	}
	return flags, words, nil
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return nameOf(f) == name })
	if i < 0 { // by another of its names
		i = slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	}
	if i < 0 {
		return nil
	}
	return flags[i]
}

// nameOf is a flag's first name, without the regular expression that each call
// of Names runs for each of them.
func nameOf(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		return f.Name
	case *cli.BoolFlag:
		return f.Name
	case *cli.StringSliceFlag:
		return f.Name
	case *cli.IntFlag:
		return f.Name
	case *cli.DurationFlag:
		return f.Name
	}
	return f.Names()[0]
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func unknownFlag(cmd *cli.Command, name string) error {
	if cmd == nil {
		return usage("unknown flag --%s: see mvdhcp help", name)
	}
	return usage("%s: unknown flag --%s: see mvdhcp %s --help", cmd.Name, name, cmd.Name)
}

// badFlag words what the flag parser refuses: a value of the wrong type.
func badFlag(c *cli.Context, err error, _ bool) error {
	said := strings.NewReplacer(" for flag -", " for flag --", " for -", " for flag --").Replace(err.Error())
	if before, ok := strings.CutSuffix(said, ": parse error"); ok { // of package flag
		_, name, _ := strings.Cut(before, " for flag --")
		switch findFlag(append(slices.Clone(c.App.Flags), c.Command.Flags...), name).(type) {
		case *cli.DurationFlag:
			return usage("%s: %s: give a time with its unit, such as 30s", c.Command.Name, before)
		case *cli.IntFlag:
			return usage("%s: %s: give a whole number", c.Command.Name, before)
		case *cli.BoolFlag:
			return usage("%s: %s: give true or false, or no value", c.Command.Name, before)
		}
	}
	return usage("%s: %s: see mvdhcp %s --help", c.Command.Name, said, c.Command.Name)
}

// argument returns the one argument a command needs.
func argument(c *cli.Context, name string) (string, error) {
	arg, err := optional(c)
	if err == nil && arg == "" {
		err = usage("%s: no %s: see mvdhcp %s --help", c.Command.Name, name, c.Command.Name)
	}
	return arg, err
}

// optional returns the argument of a command that takes one at most. An empty
// one that is there is refused: it is a variable that was not set.
func optional(c *cli.Context) (string, error) {
	if c.NArg() > 1 {
		return "", surplus(c, 1)
	}
	if c.NArg() == 1 && c.Args().First() == "" {
		return "", usage("%s: the argument is empty: leave it out or name something", c.Command.Name)
	}
	return c.Args().First(), checkEmpty(c)
}

// noArgument refuses any.
func noArgument(c *cli.Context) error {
	if c.NArg() > 0 {
		return surplus(c, 0)
	}
	return checkEmpty(c)
}

func surplus(c *cli.Context, taken int) error {
	return usage("%s: unexpected argument %q: see mvdhcp %s --help", c.Command.Name, c.Args().Get(taken), c.Command.Name)
}

// checkEmpty refuses flags that are there without a value: taking the default
// would hide that a variable was not set.
func checkEmpty(c *cli.Context) error {
	given := c.FlagNames()
	for _, f := range append(slices.Clone(c.App.Flags), c.Command.Flags...) {
		name := nameOf(f)
		if !slices.Contains(given, name) {
			continue
		}
		var values []string
		switch f.(type) {
		case *cli.StringFlag:
			values = []string{c.String(name)}
		case *cli.StringSliceFlag:
			values = c.StringSlice(name)
		}
		if slices.Contains(values, "") {
			return usage("%s: --%s is empty: give a value or leave it out", c.Command.Name, name)
		}
	}
	return nil
}

// explicitZero refuses a number that was typed and would count as not given.
func explicitZero(c *cli.Context, names ...string) error {
	for _, name := range names {
		if v := fmt.Sprint(c.Value(name)); c.IsSet(name) && (v == "0" || v == "0s") {
			return usage("%s: --%s 0: give a value above 0", c.Command.Name, name)
		}
	}
	return nil
}
