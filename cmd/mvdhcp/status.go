// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show how the keeper is",
		UsageText: "mvdhcp status [--json]",
		Description: describeCommand(`
			Shows the keeper's version and uptime, its leases by state, its parents with
			their carrier, its store, and what it uses. Exit status 5 when none answers.`,
			"mvdhcp status"),
		Flags:  []cli.Flag{jsonFlag()},
		Action: status,
	}
}

func status(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	st, err := client(c).Status(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, st)
	}
	_, err = fmt.Fprint(c.App.Writer, statusText(st))
	return err
}

func statusText(st api.Status) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-8s %s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	row("keeper", "mvdhcp %s, pid %d, up %s", st.Version, st.PID, span(time.Duration(st.Uptime*float64(time.Second))))
	row("socket", "%s", st.Socket)
	row("store", "%s (%s)", st.StorePath, bytesText(uint64(max(st.StoreBytes, 0))))
	total := 0
	for _, n := range st.Leases {
		total += n
	}
	row("leases", "%d%s", total, counts(": ", st.Leases))
	for i, p := range st.Parents {
		name := ""
		if i == 0 {
			name = "parents"
		}
		row(name, "%s %s, %s", p.Name, link(p), plural(p.Leases, "lease"))
	}
	row("uses", "%s, %s, %s, %s, %s", bytesText(st.MemoryBytes), plural(st.Threads, "thread"),
		plural(st.Descriptors, "descriptor"), plural(st.Goroutines, "goroutine"), plural(st.Jobs, "exchange")+" under way")
	row("events", "%s", cmp.Or(counts("", st.Events), "none yet"))
	return b.String()
}

func link(p api.ParentStatus) string {
	switch {
	case p.Missing:
		return "missing"
	case !p.Up:
		return "down"
	case !p.Carrier:
		return "up, no carrier"
	}
	return "up"
}

// counts lists numbers by name.
func counts[N int | int64](prefix string, m map[string]N) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d %s", m[k], k))
	}
	if len(out) == 0 {
		return ""
	}
	return prefix + strings.Join(out, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func bytesText(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
