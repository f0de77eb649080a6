// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"mvdhcp/internal/api"
)

// Nothing here reaches the keeper: the fake one fails the test when it does.
func TestBadInput(t *testing.T) {
	k := &keeperOf{}
	socket := serveKeeper(t, k)
	attach := func(more ...string) []string {
		return append([]string{"attach", "netns:a", "--parent", "up0"}, more...)
	}
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"nonsense"}, `unknown command "nonsense"`},
		{[]string{"help", "nonsense"}, "nonsense"},
		{[]string{"--nonsense"}, "unknown flag --nonsense"},
		{[]string{"--nonsense", "leases"}, "unknown flag --nonsense"},
		{[]string{"leases", "--nonsense"}, "leases: unknown flag --nonsense: see mvdhcp leases --help"},
		{[]string{"leases", "-x"}, "unknown flag --x"},
		{[]string{"leases", "--parent", "up0"}, "unknown flag --parent"},
		{[]string{"leases", "--json=maybe"}, "--json"},
		{[]string{"leases", "--json=maybe"}, "give true or false, or no value"},
		{[]string{"leases", "a", "b"}, `unexpected argument "b"`},
		{[]string{"leases", ""}, "empty"},
		{[]string{"leases", "a\x1bb"}, "printed"},
		{[]string{"leases", "--socket"}, "--socket needs a value"},
		{[]string{"leases", "--socket="}, "--socket is empty"},
		{[]string{"attach"}, "no TARGET"},
		{[]string{"attach", "--parent", "up0"}, "no TARGET"},
		{[]string{"attach", "netns:a"}, "no --parent"},
		{[]string{"attach", "netns:a", "--parent"}, "--parent needs a value"},
		{[]string{"attach", "netns:a", "--parent", ""}, "--parent is empty"},
		{[]string{"attach", "netns:a", "b", "--parent", "up0"}, `unexpected argument "b"`},
		{[]string{"attach", "--parent", "up0", "--", "netns:a", "--mtu"}, `unexpected argument "--mtu"`},
		{[]string{"attach", "", "--parent", "up0"}, "empty"},
		{[]string{"attach", "netns:", "--parent", "up0"}, "TARGET"},
		{[]string{"attach", "pid:x", "--parent", "up0"}, "TARGET"},
		{[]string{"attach", "ns:a", "--parent", "up0"}, "TARGET"},
		{[]string{"attach", "a/b", "--parent", "up0"}, "TARGET"},
		{[]string{"attach", "netns:a", "--parent", "up0.4095"}, "1 to 4094"},
		{[]string{"attach", "netns:a", "--parent", "up0.0"}, "1 to 4094"},
		{[]string{"attach", "netns:a", "--parent", "parent-that-is-too-long"}, "15 bytes"},
		{[]string{"attach", "netns:a", "--parent", "up/0"}, "slash"},
		{[]string{"attach", "netns:a", "--parent", "up 0"}, "space"},
		{[]string{"attach", "netns:a", "--parent", "."}, "--parent"},
		{[]string{"attach", "netns:a", "--parent", ".."}, "--parent"},
		{attach("--ifname", "name-that-is-too-long"), "15 bytes"},
		{attach("--ifname", "a/b"), "slash"},
		{attach("--ifname", ""), "--ifname is empty"},
		{attach("--mode", "nonsense"), "bridge, private, vepa"},
		{attach("--identity", ""), "--identity is empty"},
		{attach("--identity", strings.Repeat("x", 129)), "128"},
		{attach("--identity", "a\nb"), "printed"},
		{attach("--mac", "01:00:5e:00:00:01"), "multicast"},
		{attach("--mac", "00:00:00:00:00:00"), "zero"},
		{attach("--mac", "02:00"), "six bytes"},
		{attach("--mac", ""), "--mac is empty"},
		{attach("--client-id", "hex:0"), "--client-id"},
		{attach("--client-id", "0xgg"), "--client-id"},
		{attach("--hostname", "-a"), "--hostname"},
		{attach("--hostname", strings.Repeat("x", 64)), "63"},
		{attach("--hostname", "a", "--no-hostname"), "contradict"},
		{attach("--request-ip", "10.222.0.999"), "--request-ip"},
		{attach("--request-ip", "224.0.0.1"), "unicast"},
		{attach("--request-ip", "::1"), "IPv4"},
		{attach("--vendor-class", strings.Repeat("x", 256)), "255"},
		{attach("--user-class", strings.Repeat("x", 255)), "254"},
		{attach("--metric", "-1"), "--metric"},
		{attach("--metric", "x"), "--metric"},
		{attach("--routes", "some"), "all, default, none"},
		{attach("--mtu", "0"), "--mtu"},
		{attach("--mtu", "67"), "--mtu"},
		{attach("--mtu", "65536"), "--mtu"},
		{attach("--mtu", "large"), "--mtu: give a whole number"},
		{attach("--timeout", "5"), "--timeout: give a time with its unit"},
		{attach("--conflict-check", "maybe"), "fast, wait, async, off"},
		{attach("--allow-server", "x"), "--allow-server"},
		{attach("--allow-server", ""), "--allow-server is empty"},
		{attach("--deny-server", "10.0.0.300"), "--deny-server"},
		{attach("--timeout", "0"), "--timeout"},
		{attach("--timeout", "0s"), "--timeout"},
		{attach("--timeout", "-1s"), "--timeout"},
		{attach("--timeout", "30"), "--timeout"},
		{attach("--nonsense"), "attach: unknown flag --nonsense: see mvdhcp attach --help"},
		{[]string{"detach"}, "no TARGET"},
		{[]string{"detach", "netns:a", "netns:b"}, "unexpected"},
		{[]string{"detach", "netns:a", "--ifname", "a/b"}, "slash"},
		{[]string{"renew"}, "no LEASE|TARGET"},
		{[]string{"release"}, "no LEASE|TARGET"},
		{[]string{"release", "a", "b"}, "unexpected"},
		{[]string{"probe"}, "no --parent"},
		{[]string{"probe", "up0"}, "unexpected"},
		{[]string{"probe", "--parent", "up0", "--window", "0s"}, "--window"},
		{[]string{"events", "a"}, "unexpected"},
		{[]string{"status", "a"}, "unexpected"},
		{[]string{"version", "a"}, "unexpected"},
		{[]string{"completion"}, "no shell"},
		{[]string{"completion", "tcsh"}, "bash, zsh, fish"},
		{[]string{"serve", "a"}, "unexpected"},
		{[]string{"serve", "--log-level", "loud"}, "debug"},
		{[]string{"serve", "--log-format", "xml"}, "text, json"},
		{[]string{"serve", "--state-dir", ""}, "--state-dir is empty"},
		{[]string{"serve", "--boot-grace", "0s"}, "above 0"},
		{[]string{"serve", "--boot-grace", "soon"}, "--boot-grace"},
		{[]string{"serve", "--docker-parent", "eth/0"}, `--docker-parent "eth/0"`},
		{[]string{"serve", "--docker-parent", "eth0.9999"}, "1 to 4094"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			wantLine(t, mvdhcp(t.Context(), append(tt.args[:len(tt.args):len(tt.args)], socketLast(tt.args, socket)...)...), 2, tt.want)
		})
	}
	if len(k.calls) > 0 {
		t.Errorf("the keeper was asked: %v", k.calls)
	}
}

// socketLast is a --socket to put after the flags that are tested.
func socketLast(args []string, socket string) []string {
	last := args[len(args)-1]
	for _, a := range args {
		if a == "--" || strings.HasPrefix(a, "--socket") {
			return nil
		}
	}
	if last == "--parent" {
		return nil
	}
	return []string{"--socket", socket}
}

func TestExitStatuses(t *testing.T) {
	fail := func(code api.Code) *keeperOf {
		err := error(&api.Error{Code: code, Message: "it\nfailed"})
		if code == "" {
			err = errors.New("it\nfailed")
		}
		return &keeperOf{
			attach: func(context.Context, api.AttachRequest, func(string)) (api.Lease, error) { return api.Lease{}, err },
			probe:  func(context.Context, api.ProbeRequest) (api.ProbeResult, error) { return api.ProbeResult{}, nil },
		}
	}
	for code, status := range map[api.Code]int{"": 1, api.CodeFailed: 1, api.CodeUsage: 2, api.CodeNoAnswer: 3, api.CodeConflict: 4} {
		socket := serveKeeper(t, fail(code))
		wantLine(t, mvdhcp(t.Context(), on(socket, "attach", "netns:a", "--parent", "up0")...), status, "it failed")
	}
	socket := serveKeeper(t, fail(""))
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"leases", "nosuch"}, 1, `no lease matches "nosuch"`},
		{[]string{"leases", "nosuch", "--watch"}, 1, `no lease matches "nosuch"`},
		{[]string{"leases", "nosuch", "--json"}, 1, `no lease matches "nosuch"`},
		{[]string{"renew", "nosuch"}, 1, `no lease matches "nosuch"`},
		{[]string{"release", "nosuch"}, 1, `no lease matches "nosuch"`},
		{[]string{"detach", "netns:nosuch"}, 1, "nothing of it is attached"},
		{[]string{"probe", "--parent", "up0", "--window", "1s"}, 3, "no DHCP server answered within 1s"},
	} {
		wantLine(t, mvdhcp(t.Context(), on(socket, tt.args...)...), tt.status, tt.want)
	}
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, args := range [][]string{{"leases"}, {"leases", "--watch"}, {"status"}, {"events"}, {"detach", "netns:a"}, {"renew", "a"}, {"release", "a"}, {"probe", "--parent", "up0"}, {"host-link", "--parent", "up0", "--remove"}, {"attach", "netns:a", "--parent", "up0", "--no-start"}} {
		wantLine(t, mvdhcp(t.Context(), on(none, args...)...), 5, "keeper not reachable at "+none)
	}
}

func TestProbeWithoutAnswerStillPrintsJSON(t *testing.T) {
	k := &keeperOf{probe: func(_ context.Context, r api.ProbeRequest) (api.ProbeResult, error) {
		return api.ProbeResult{Parent: r.Parent}, nil
	}}
	r := mvdhcp(t.Context(), on(serveKeeper(t, k), "probe", "--parent", "up0", "--json")...)
	if r.status != 3 || !strings.Contains(r.stdout, `"offers": []`) {
		t.Errorf("%+v", r)
	}
	k.probe = func(context.Context, api.ProbeRequest) (api.ProbeResult, error) {
		return api.ProbeResult{}, &api.Error{Code: api.CodeNoAnswer, Message: "nobody"}
	}
	r = mvdhcp(t.Context(), on(serveKeeper(t, k), "probe", "--parent", "up0", "--json")...)
	var res api.ProbeResult
	if err := json.Unmarshal([]byte(r.stdout), &res); err != nil || res.Parent != "up0" || r.status != 3 || r.stderr != "mvdhcp: nobody\n" {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	want := []any{api.AttachRequest{Target: "netns:a", Parent: "up0", Ifname: "eth7", Mode: "vepa", Routes: "all", ConflictCheck: "fast", AllowServers: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, NoHostname: true, Timeout: 4 * time.Second}}
	flags := []string{"--ifname=eth7", "-mode", "vepa", "--allow-server", "10.0.0.1,10.0.0.2", "--allow-server", "10.0.0.3", "--no-hostname", "--timeout", "4s"}
	for _, args := range [][]string{
		append([]string{"attach", "netns:a", "--parent", "up0"}, flags...),
		append(append([]string{"attach"}, flags...), "--parent", "up0", "netns:a"),
		append([]string{"attach", "--parent=up0", "netns:a"}, flags...),
		append([]string{"--parent", "up0", "attach", "netns:a"}, flags...),
		append(append([]string{"attach"}, flags...), "--parent", "up0", "--", "netns:a"),
	} {
		k := &keeperOf{}
		socket := serveKeeper(t, k)
		t.Setenv("MVDHCP_SOCKET", socket)
		if r := mvdhcp(t.Context(), args...); r.status != 0 {
			t.Errorf("%v: %+v", args, r)
		}
		if diff := cmp.Diff(want, k.calls); diff != "" {
			t.Errorf("%v (-want +got):\n%s", args, diff)
		}
	}
}

func TestWordsAfterDashesAreNoFlags(t *testing.T) {
	k := &keeperOf{}
	r := mvdhcp(t.Context(), on(serveKeeper(t, k), "leases", "--all", "--", "--json")...)
	wantLine(t, r, 1, `no lease matches "--json"`)
	if diff := cmp.Diff([]any{"--json"}, k.calls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// "help" behind a command is a target like any other.
func TestHelpIsATarget(t *testing.T) {
	k := &keeperOf{leases: []api.Lease{{ID: "1", Identity: "help", Target: "help", Ifname: "eth0"}}}
	if r := mvdhcp(t.Context(), on(serveKeeper(t, k), "detach", "help")...); r.stdout != "help: eth0 released\n" {
		t.Errorf("%+v", r)
	}
}

// split relies on this: a flag takes a value in all commands or in none.
func TestFlagsOfOneNameAreOfOneKind(t *testing.T) {
	app := newApp(nil, nil)
	app.Setup()
	kind := map[string]bool{}
	for _, c := range app.Commands {
		for _, f := range append(c.Flags, app.Flags...) {
			for _, name := range f.Names() {
				if takes, ok := kind[name]; ok && takes != takesValue(f) {
					t.Errorf("--%s of %s takes a value elsewhere or not", name, c.Name)
				}
				kind[name] = takesValue(f)
			}
		}
	}
}

func TestSocketComesFromTheEnvironment(t *testing.T) {
	here := serveKeeper(t, &keeperOf{})
	none := filepath.Join(t.TempDir(), "none.sock")
	t.Setenv("MVDHCP_SOCKET", here)
	if r := mvdhcp(t.Context(), "leases"); r.status != 0 {
		t.Errorf("the variable does not count: %+v", r)
	}
	if r := mvdhcp(t.Context(), "leases", "--socket", none); r.status != 5 {
		t.Errorf("the flag does not win: %+v", r)
	}
	t.Setenv("MVDHCP_SOCKET", none)
	if r := mvdhcp(t.Context(), on(here, "leases")...); r.status != 0 {
		t.Errorf("the flag does not win: %+v", r)
	}
	t.Setenv("MVDHCP_SOCKET", "")
	t.Setenv("MVDHCP_STATE_DIR", "")
	app := newApp(nil, nil)
	for name, want := range map[string]string{"socket": defaultSocket, "state-dir": defaultStateDir} {
		f, ok := findFlag(append(app.Flags, app.Command("serve").Flags...), name).(*cli.StringFlag)
		if !ok || f.Value != want {
			t.Errorf("an empty variable does not leave --%s at %s: %+v", name, want, f)
		}
	}
}
