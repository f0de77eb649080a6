// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mvdhcp/internal/api"
)

// The drivers complete each line of $LINES as the shell's line editor would
// have it done, and print the candidates behind a line "== LINE".
const bashDriver = `
source <(mvdhcp completion bash)
complete -p mvdhcp >/dev/null || exit 1
COMP_WORDBREAKS=$BREAKS
while IFS= read -r COMP_LINE; do
	COMP_POINT=${#COMP_LINE} COMP_WORDS=(mvdhcp) COMP_CWORD=0
	_mvdhcp
	printf '%s\n' "== $COMP_LINE" "${COMPREPLY[@]}"
done <<<"$LINES_"
`

const zshDriver = `
compdef() { [[ $1 == _mvdhcp && $2 == mvdhcp ]] || exit 1 }
source <(mvdhcp completion zsh)
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- "$@" }
for line in ${(f)LINES_}; do
  print -r -- "== $line"
  words=(${(s: :)line})
  [[ $line == *' ' ]] && words+=('')
  CURRENT=$#words
  _mvdhcp || true # 1: no match
done
`

const fishDriver = `
mvdhcp completion fish | source
for line in (string split \n -- $LINES_)
    echo "== $line"
    complete -C "$line"
end
`

// inShell completes lines in a shell and returns the candidates of each.
func inShell(t *testing.T, name string, lines []string, env ...string) map[string][]string {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(executable(t), filepath.Join(bin, "mvdhcp")); err != nil {
		t.Fatal(err)
	}
	var cmd *exec.Cmd
	switch name {
	case "bash":
		cmd = exec.CommandContext(t.Context(), "bash", "--norc", "-c", bashDriver)
	case "zsh":
		cmd = exec.CommandContext(t.Context(), "zsh", "-f", "-c", zshDriver)
	case "fish":
		cmd = exec.CommandContext(t.Context(), "fish", "--no-config", "-c", fishDriver)
	}
	cmd.Env = append(os.Environ(), asProgram+"=", "HOME="+bin, "PATH="+bin+":"+os.Getenv("PATH"), "LINES_="+strings.Join(lines, "\n"), "BREAKS= \t\n\"'><=;|&(:")
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Errorf("%s: %v: %s", name, err, &stderr)
	}
	got := map[string][]string{}
	for part := range strings.SplitSeq("\n"+string(out), "\n== ") {
		line, candidates, _ := strings.Cut(part, "\n")
		if words := strings.Fields(candidates); line != "" {
			slices.Sort(words)
			got[line] = words
		}
	}
	return got
}

func executable(t *testing.T) string {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// shellsHere says which shells are tested, and which are not.
func shellsHere(t *testing.T) []string {
	var here []string
	for _, name := range shells {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("NOT TESTED: %s is not installed", name)
			continue
		}
		here = append(here, name)
	}
	if !slices.Contains(here, "bash") {
		t.Fatal("not even bash is there")
	}
	return here
}

func TestCompletionScripts(t *testing.T) {
	socket := "MVDHCP_SOCKET=" + serveKeeper(t, &keeperOf{leases: someLeases(timeZero)[:2]})
	want := map[string][]string{
		"mvdhcp re":                        {"release", "renew"},
		"mvdhcp attach x --parent lo --mo": {"--mode"},
		"mvdhcp attach x --mode ":          {"bridge", "private", "vepa"},
		"mvdhcp release w":                 {"web"},
		"mvdhcp detach netns:":             {"netns:db"},
		"mvdhcp detach docker:w":           {"docker:web"},
		"mvdhcp leases web ":               nil,
	}
	// bash replaces only what stands behind the last colon or equals sign, and
	// looks for the command behind other words.
	inBash := maps.Clone(want)
	maps.Copy(inBash, map[string][]string{
		"mvdhcp detach netns:":           {"db"},
		"mvdhcp detach docker:w":         {"web"},
		"mvdhcp attach x --mode=p":       {"private"},
		"sudo  X=1 mvdhcp completion --": {"--help", "--socket"},
	})
	for _, name := range shellsHere(t) {
		want := want
		if name == "bash" {
			want = inBash
		}
		got := inShell(t, name, slices.Sorted(maps.Keys(want)), socket)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	unbroken := map[string][]string{"mvdhcp detach netns:": {"netns:db"}}
	if diff := cmp.Diff(unbroken, inShell(t, "bash", []string{"mvdhcp detach netns:"}, socket, "BREAKS= =")); diff != "" {
		t.Errorf("bash where colons break no words (-want +got):\n%s", diff)
	}
}

func TestCandidates(t *testing.T) {
	socket := serveKeeper(t, &keeperOf{leases: append(someLeases(timeZero)[:3], api.Lease{ID: "9", Identity: "x\x1b"})})
	name := netns(t)
	t.Setenv("DOCKER_HOST", "unix://"+engine(t, "c1", "c2"))
	var links []string
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lo" {
			links = append(links, e.Name())
		}
	}
	complete := func(words ...string) []string {
		t.Setenv("MVDHCP_SOCKET", socket)
		r := mvdhcp(t.Context(), append([]string{completeName}, words...)...)
		if r.status != 0 || r.stderr != "" {
			t.Errorf("%q: %+v", words, r)
		}
		return strings.Fields(r.stdout)
	}
	for _, tt := range []struct{ words, want []string }{
		{[]string{"attach", "x", "--parent", ""}, links},
		{[]string{"leases", ""}, []string{"0a1b2c3d4e5f", "1", "2", "9", "db", "docker:web", "netns:db", "pid:77", "web"}},
		{[]string{"renew", "--json", "d"}, []string{"db", "docker:web"}},
		{[]string{"--socket", "/nonexistent", "leases", ""}, nil},
		{[]string{"--socket=/nonexistent", "leases", ""}, nil},
		{[]string{"attach", "netns:" + name[:len(name)-1]}, []string{"netns:" + name}},
		{[]string{"attach", "c"}, []string{"c1", "c2"}},
		{[]string{"attach", "docker:c"}, []string{"docker:c1", "docker:c2"}},
		{[]string{"attach", "--id"}, []string{"--identity"}},
		{[]string{"attach", "--identity", "web", "--id"}, nil},
		{[]string{"attach", "--allow-server", "1.1.1.1", "--allow"}, []string{"--allow-server"}},
		{[]string{"attach", "--identity", "we"}, []string{"web"}},
		{[]string{"detach", "--", "net"}, []string{"netns:db"}},
		{[]string{"serve", "--log-format", ""}, []string{"json", "text"}},
		{[]string{"serve", "--log-level=d"}, []string{"--log-level=debug"}},
		{[]string{"--s"}, []string{"--socket"}},
		{[]string{"help", "att"}, []string{"attach"}},
		{[]string{"attach", "--timeout", ""}, nil},
		{nil, strings.Fields("attach completion detach doctor events help host-link leases probe release renew serve status version")},
	} {
		if diff := cmp.Diff(tt.want, complete(tt.words...), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.words, diff)
		}
	}
}

// netns makes a named network namespace for the test.
func netns(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("mvcomp%d", os.Getpid())
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
	})
	return name
}

// engine is a Docker engine with containers of these names.
func engine(t *testing.T, names ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.45")
		if !strings.HasSuffix(r.URL.Path, "/containers/json") {
			return
		}
		var items []string
		for _, n := range names {
			items = append(items, fmt.Sprintf(`{"Id":"%x","Names":["/%s"]}`, n, n))
		}
		fmt.Fprintf(w, "[%s]", strings.Join(items, ","))
	})}
	go srv.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { srv.Close() })
	return path
}
