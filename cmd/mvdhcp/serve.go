// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
	"mvdhcp/internal/daemon"
)

// runKeeper is the keeper; tests put another one in its place.
var runKeeper = daemon.Run

var (
	logLevels  = []string{"info", "debug", "warn", "error"}
	logFormats = []string{"text", "json"}
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "run the keeper",
		UsageText: "mvdhcp serve [FLAGS]",
		Description: describeCommand(`
			Keeps the leases of this host until it gets SIGTERM or SIGINT. Addresses and
			leases stay in place when it ends, and the next one takes them up. It logs to
			stderr. Sockets that systemd passes, named api and docker, count before
			--socket and --docker-socket; the latter turns --docker on.`,
			"mvdhcp serve",
			"mvdhcp serve --log-level debug --log-format json",
			"mvdhcp serve --docker"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Usage: "keep the leases in `DIR`; without it $MVDHCP_STATE_DIR counts", Value: fromEnv("MVDHCP_STATE_DIR", defaultStateDir), DefaultText: defaultStateDir},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn, error", Value: logLevels[0]},
			&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`: " + strings.Join(logFormats, ", "), Value: logFormats[0]},
			&cli.DurationFlag{Name: "boot-grace", Usage: "after a boot wait `TIME` for namespaces to be set up anew", Value: time.Minute},
			boolFlag("docker", "serve Docker's IPAM plugin and network driver as well"),
			&cli.StringFlag{Name: "docker-socket", Usage: "the plugin's `SOCKET`; its file name is the driver's name", Value: "/run/docker/plugins/mvdhcp.sock"},
			&cli.StringFlag{Name: "docker-parent", Usage: "the parent `IF` of IPAM pools that name none, as those of Compose v2; without it $MVDHCP_DOCKER_PARENT counts", Value: fromEnv("MVDHCP_DOCKER_PARENT", "")},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	for name, all := range map[string][]string{"log-level": logLevels, "log-format": logFormats} {
		if v := c.String(name); !slices.Contains(all, v) {
			return usage("serve: --%s %q: give one of %s", name, v, strings.Join(all, ", "))
		}
	}
	if d := c.Duration("boot-grace"); d <= 0 {
		return usage("serve: --boot-grace %v: give a time above 0, such as 1m", d)
	}
	if p := c.String("docker-parent"); p != "" {
		if err := api.CheckParent(p); err != nil {
			return usage("serve: --docker-%s", strings.TrimPrefix(err.Error(), "--"))
		}
	}
	if err := needRoot("the keeper (mvdhcp serve)"); err != nil {
		return err
	}
	stateDir, err := filepath.Abs(c.String("state-dir"))
	if err != nil {
		return err
	}
	return runKeeper(c.Context, daemon.Options{
		Socket:       socketPath(c),
		StateDir:     stateDir,
		Log:          newLogger(c.App.ErrWriter, c.String("log-level"), c.String("log-format")),
		Version:      version(),
		BootGrace:    c.Duration("boot-grace"),
		Docker:       c.Bool("docker"),
		DockerSocket: c.String("docker-socket"),
		DockerParent: c.String("docker-parent"),
	})
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
