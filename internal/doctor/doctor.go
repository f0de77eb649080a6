// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"mvdhcp/provision"
)

// Level says how much a finding matters.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Note    Level = "note"    // works, and is good to know
	Warning Level = "warning" // can fail, or will when more is attached
	Problem Level = "problem" // attach fails, or leases are lost
)

// Finding is the outcome of one look.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	What  string `json:"what"`
	// Why it matters, and what to do about it: a command where there is one.
	Why string `json:"why,omitempty"`
	Fix string `json:"fix,omitempty"`
}

// Report is what an examination found.
type Report struct {
	Parent   string    `json:"parent"`
	Findings []Finding `json:"findings"`
}

// Worst is the gravest level there is.
func (r Report) Worst() Level {
	rank := map[Level]int{OK: 0, Note: 1, Warning: 2, Problem: 3}
	worst := OK
	for _, f := range r.Findings {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

// Options says what to examine.
type Options struct {
	Kernel     *provision.Kernel
	Log        *slog.Logger
	Parent     string
	StateDir   string
	Socket     string        // the keeper's
	DockerHost string        // "": DOCKER_HOST, or the default socket
	Version    string        // this program's
	Window     time.Duration // how long DHCP servers may take to answer
	Patience   time.Duration // how long the first of them may take beyond that
	Progress   func(string)
}

// Examine looks at everything. What can't be looked at is a finding too.
func Examine(ctx context.Context, o Options) Report {
	x := &examination{Options: o, report: Report{Parent: o.Parent}}
	o.Progress("looking at the parent")
	usable := x.parent()
	x.host()
	if usable {
		x.servers(ctx)
	}
	o.Progress("looking at the host")
	x.stateDir()
	x.keeper(ctx)
	x.engine(ctx)
	return x.report
}

// examination collects findings.
type examination struct {
	Options
	report Report
}

func (x *examination) ok(check, format string, args ...any) {
	x.add(Finding{Check: check, Level: OK, What: fmt.Sprintf(format, args...)})
}

// plural writes n things, one of them in the singular.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (x *examination) add(f Finding) { x.report.Findings = append(x.report.Findings, f) }
