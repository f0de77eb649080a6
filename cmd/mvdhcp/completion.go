// SPDX-License-Identifier: Apache-2.0

package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

//go:embed completion
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a completion script for a shell",
		UsageText: "mvdhcp completion " + strings.Join(shells, "|"),
		Description: describeCommand(`
			Prints a script that completes commands, flags, targets, leases and interfaces
			in bash, zsh or fish.`,
			"source <(mvdhcp completion bash)",
			"mvdhcp completion zsh > \"${fpath[1]}/_mvdhcp\"",
			"mvdhcp completion fish > ~/.config/fish/completions/mvdhcp.fish"),
		Action: completion,
	}
}

func completion(c *cli.Context) error {
	shell, err := argument(c, "shell")
	if err != nil {
		return err
	}
	if !slices.Contains(shells, shell) {
		return usage("completion %q: give one of %s", shell, strings.Join(shells, ", "))
	}
	script, err := completionScripts.ReadFile("completion/mvdhcp." + shell)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(c.App.Writer, string(script))
	return err
}
