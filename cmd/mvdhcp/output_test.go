// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/internal/api"
)

// timeZero is for leases whose times do not show.
var timeZero time.Time

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// someLeases end in times that are shown alike for the half minute around them.
func someLeases(now time.Time) []api.Lease {
	const slack = 30 * time.Second
	bound := api.Lease{
		ID: "0a1b2c3d4e5f", Identity: "web", State: "bound", Target: "docker:web", NetNS: "/proc/812/ns/net", Ifname: "eth0", Parent: "ens192.100", Mode: "bridge",
		MAC: "02:11:22:33:44:55", ClientID: "01021122334455", Hostname: "web", Address: "10.0.0.57/24", Gateway: "10.0.0.1",
		Routes: []api.Route{{Dst: "10.9.0.0/16", Via: "10.0.0.9"}}, DNS: []string{"10.0.0.53"}, Domain: "lan", MTU: 1500, Server: "10.0.0.1", LeaseSeconds: 43200,
		BoundAt: api.Time{Time: now}, RenewAt: api.Time{Time: now.Add(6*time.Hour + slack)}, RebindAt: api.Time{Time: now.Add(10*time.Hour + slack)},
		ExpiresAt: api.Time{Time: now.Add(12*time.Hour + slack)}, Renewals: 3, ParentState: "up",
	}
	forever := bound
	forever.ID, forever.Identity, forever.Target, forever.Ifname = "1", "db", "netns:db", "eth1"
	forever.LeaseSeconds, forever.ParentState = math.MaxUint32, "down"
	forever.RenewAt, forever.RebindAt, forever.ExpiresAt = api.Time{}, api.Time{}, api.Time{}
	seeking := api.Lease{ID: "2", Identity: "a name", State: "selecting", Target: "pid:77", Ifname: "eth0", Parent: "eth1", MAC: "02:00:00:00:00:01", LastError: "no DHCP server answered\x1b[2J", ParentState: "missing"}
	ended := bound
	ended.ID, ended.Identity, ended.State, ended.EndedAt, ended.EndReason = "3", "old", "ended", now.Add(-2*time.Hour-10*time.Minute-slack), "detached"
	return []api.Lease{bound, forever, seeking, ended}
}

func TestOutput(t *testing.T) {
	then := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	status := api.Status{
		Version: "v1.2.3", PID: 4711, StartedAt: then, Uptime: 11520, Leases: map[string]int{"bound": 10, "renewing": 2},
		Parents:   []api.ParentStatus{{Name: "ens192.100", Up: true, Carrier: true, Leases: 11}, {Name: "eth1", Up: true, Leases: 1}, {Name: "eth2"}, {Name: "eth3", Missing: true}},
		StorePath: "/var/lib/mvdhcp/leases.db", StoreBytes: 131072, Socket: "/run/mvdhcp/mvdhcp.sock",
		Goroutines: 12, Threads: 9, Descriptors: 14, MemoryBytes: 13 << 20, Jobs: 1, Events: map[string]int64{"bound": 12, "renewed": 40},
	}
	probe := api.ProbeResult{Parent: "up0", Offers: []api.ProbeOffer{
		{Server: "10.0.0.1", ServerMAC: "52:54:00:00:00:01", Address: "10.0.0.90", Subnet: "10.0.0.0/24", Router: "10.0.0.1", LeaseSeconds: 43200, DNS: []string{"10.0.0.53", "10.0.0.54"}, Domain: "lan"},
		{Server: "10.0.0.66", ServerMAC: "52:54:00:00:00:66", Address: "10.0.0.91", Subnet: "10.0.0.0/24", LeaseSeconds: math.MaxUint32, Differs: []string{"router", "lease_seconds", "dns", "domain"}},
	}}
	relative, fixed := someLeases(time.Now()), someLeases(then)
	tests := []struct {
		golden string
		leases []api.Lease
		args   []string
	}{
		{"leases.txt", relative, []string{"leases"}},
		{"leases-all.txt", relative, []string{"leases", "--all"}},
		{"leases-one.json", fixed, []string{"leases", "--json", "web"}},
		{"leases-none.txt", nil, []string{"leases"}},
		{"leases-none.json", nil, []string{"--json", "leases"}},
		{"renew.txt", relative, []string{"renew", "web"}},
		{"renew-forever.txt", relative, []string{"renew", "db"}},
		{"renew-seeking.txt", relative, []string{"renew", "a name"}},
		{"renew.json", fixed, []string{"renew", "web", "--json"}},
		{"release.txt", relative, []string{"release", "web"}},
		{"detach.txt", relative, []string{"detach", "docker:web"}},
		{"detach-keep.txt", relative, []string{"detach", "docker:web", "--keep-lease"}},
		{"detach-keep-forever.txt", relative, []string{"detach", "--keep-lease", "netns:db"}},
		{"detach.json", fixed, []string{"detach", "docker:web", "--json"}},
		{"attach.txt", nil, []string{"attach", "netns:a", "--parent", "up0"}},
		{"attach.json", nil, []string{"attach", "netns:a", "--parent", "up0", "--json"}},
		{"probe.txt", nil, []string{"probe", "--parent", "up0"}},
		{"probe.json", nil, []string{"probe", "--parent", "up0", "--json"}},
		{"status.txt", nil, []string{"status"}},
		{"status.json", nil, []string{"status", "--json"}},
		{"help.txt", nil, []string{"help"}},
		{"help-attach.txt", nil, []string{"help", "attach"}},
		{"help-attach.txt", nil, []string{"attach", "--help"}},
		{"help-attach.txt", nil, []string{"attach", "netns:a", "-h"}},
		{"help-serve.txt", nil, []string{"serve", "--help"}},
		{"help-detach.txt", nil, []string{"detach", "--help"}},
		{"help-leases.txt", nil, []string{"leases", "--help"}},
		{"help-renew.txt", nil, []string{"renew", "--help"}},
		{"help-release.txt", nil, []string{"release", "--help"}},
		{"help-probe.txt", nil, []string{"probe", "--help"}},
		{"help-events.txt", nil, []string{"events", "--help"}},
		{"help-status.txt", nil, []string{"status", "--help"}},
		{"help-version.txt", nil, []string{"version", "--help"}},
		{"help-completion.txt", nil, []string{"completion", "--help"}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			k := &keeperOf{leases: tt.leases, status: status, probe: func(context.Context, api.ProbeRequest) (api.ProbeResult, error) { return probe, nil }}
			r := mvdhcp(t.Context(), on(serveKeeper(t, k), tt.args...)...)
			if r.status != 0 || r.stderr != "" {
				t.Errorf("status %d, stderr %q", r.status, r.stderr)
			}
			golden(t, tt.golden, r.stdout)
			if strings.ContainsRune(r.stdout, 0x1b) {
				t.Error("an escape sequence got through")
			}
		})
	}
}

func TestEveryHelpShowsAnExample(t *testing.T) {
	for _, c := range newApp(nil, nil).Commands {
		if c.Hidden {
			continue
		}
		r := mvdhcp(t.Context(), c.Name, "--help")
		if r.status != 0 || !strings.Contains(r.stdout, "EXAMPLE:") || !strings.Contains(r.stdout, "mvdhcp "+c.Name) || !strings.Contains(r.stdout, "EXIT STATUS:") {
			t.Errorf("%s --help (status %d):\n%s", c.Name, r.status, r.stdout)
		}
	}
}

// A command line that begins with a command makes that one alone, by its name in
// the list; completion needs all.
func TestCommandsAreMadeByName(t *testing.T) {
	for _, c := range commands {
		if made := c.command(); made.Name != c.name {
			t.Errorf("%s makes the command %s", c.name, made.Name)
		}
		for _, args := range [][]string{{"mvdhcp", c.name}, {"mvdhcp", "--socket", "s", c.name}} {
			want := 1
			if c.name == completeName {
				want = len(commands)
			}
			if app := appFor(args, nil, nil); len(app.Commands) != want || app.Command(c.name) == nil {
				t.Errorf("%v: %d commands made, want %d", args, len(app.Commands), want)
			}
		}
	}
	for _, args := range [][]string{nil, {"mvdhcp"}, {"mvdhcp", "help"}, {"mvdhcp", "--json", "leases"}, {"mvdhcp", "nonsense"}} {
		if app := appFor(args, nil, nil); len(app.Commands) != len(commands) {
			t.Errorf("%v: %d commands made, want all", args, len(app.Commands))
		}
	}
}

func TestVersion(t *testing.T) {
	if r := mvdhcp(t.Context(), "version"); r.status != 0 || !strings.Contains(r.stdout, "linux/") || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("%+v", r)
	}
	var v map[string]string
	r := mvdhcp(t.Context(), "version", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "go", "os", "arch"} {
		if v[key] == "" {
			t.Errorf("no %q in %s", key, r.stdout)
		}
	}
}

func TestNoCommandShowsHelpAndFails(t *testing.T) {
	r := mvdhcp(t.Context())
	if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "COMMANDS:") {
		t.Errorf("%+v", r)
	}
}

func TestSpan(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1s": 600 * time.Millisecond, "59s": 59 * time.Second, "1m": time.Minute, "90s": 90 * time.Second, "2m": 2 * time.Minute,
		"2m1s": 121 * time.Second, "12h": 12*time.Hour - 300*time.Millisecond, "11h59m": 12*time.Hour - time.Second, "1d": 24 * time.Hour,
		"1d12h": 36 * time.Hour, "7d": 7*24*time.Hour + time.Minute,
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if got := span(-time.Hour); got != "0s" {
		t.Errorf("before: %s", got)
	}
	for want, s := range map[string]int64{"12h": 43200, "for ever": math.MaxUint32, "0s": -5} {
		if got := leaseTime(s); got != want {
			t.Errorf("%d: %s, want %s", s, got, want)
		}
	}
}

func TestDescribeARenewalThatIsDue(t *testing.T) {
	now := time.Now()
	l := api.Lease{Identity: "a", Ifname: "eth0", Address: "10.0.0.5/24", Server: "10.0.0.1", LeaseSeconds: 120, RenewAt: api.Time{Time: now.Add(-time.Second)}, LastError: "no\nanswer"}
	if got, want := describe(l, now), "a: eth0 10.0.0.5/24, lease 2m from 10.0.0.1, renewal due (last error: no answer)"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestEventLine(t *testing.T) {
	e := api.Event{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Kind: "changed", Identity: "web", Target: "docker:web", Ifname: "eth0", Parent: "up0", Address: "10.0.0.60/24", Server: "10.0.0.1",
		Old: map[string]string{"address": "10.0.0.57/24", "mtu": "1500"}, New: map[string]string{"address": "10.0.0.60/24", "dns": "10.0.0.53"}, Message: "by\nthe server\x1b",
	}
	want := "2026-03-01 12:00:00 changed     web eth0@docker:web 10.0.0.60/24 from 10.0.0.1 on up0 (address 10.0.0.57/24 → 10.0.0.60/24, dns none → 10.0.0.53, mtu 1500 → none): by the server?"
	if diff := cmp.Diff(want, eventLine(e)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, want := eventLine(api.Event{Time: e.Time, Kind: "parent-down", Parent: "up0"}), "2026-03-01 12:00:00 parent-down on up0"; got != want {
		t.Errorf("got %q", got)
	}
}
