// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release builds set it: -ldflags "-X main.buildVersion=v1.2.3".
var buildVersion string

// version is that of a release, else what the Go tool knows of the source.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:      "version",
		Usage:     "print the version",
		UsageText: "mvdhcp version [--json]",
		Description: describeCommand(`
			Prints the version of this program and what it was built with; mvdhcp status
			has the version of the keeper that runs.`,
			"mvdhcp version"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: showVersion,
	}
}

func showVersion(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	v := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{version(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if c.Bool("json") {
		return printJSON(c.App.Writer, v)
	}
	_, err := fmt.Fprintf(c.App.Writer, "mvdhcp %s (%s %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}
