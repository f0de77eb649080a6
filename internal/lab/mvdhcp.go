// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// binEnv names a built mvdhcp to test. Without it the lab builds one.
const binEnv = "MVDHCP_BIN"

// Binary is the path of the mvdhcp under test, built once a process.
func (l *Lab) Binary() string {
	l.tb.Helper()
	path, err := built()
	l.must(err, "build mvdhcp")
	return path
}

var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binEnv); path != "" {
		return filepath.Abs(path)
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(os.TempDir(), ownPrefix()+"bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "mvdhcp")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "urfave_cli_no_docs", "-o", path, "./cmd/mvdhcp")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// ModuleRoot is the folder with go.mod, at or above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod here or above")
		}
	}
}

// Keeper is a host's keeper, with a socket and a state directory of its own that
// stay when it is killed.
type Keeper struct {
	Host     *Host
	Socket   string
	StateDir string

	args    []string
	env     []string
	process *Process
}

// Keeper starts `mvdhcp serve` on a host with more arguments, and waits until it
// answers.
func (l *Lab) Keeper(h *Host, args ...string) *Keeper {
	l.tb.Helper()
	k := l.NoKeeper(h)
	k.args = args
	k.Start()
	return k
}

// NoKeeper is a keeper that isn't started, for commands with its socket.
func (l *Lab) NoKeeper(h *Host) *Keeper {
	l.tb.Helper()
	dir := filepath.Join(l.dir, l.unique("keeper"))
	l.must(os.Mkdir(dir, 0o755), "make the keeper's directory")
	return &Keeper{Host: h, Socket: filepath.Join(dir, "sock"), StateDir: filepath.Join(dir, "state")}
}

// SetEnv adds to the environment of the next Start.
func (k *Keeper) SetEnv(env ...string) { k.env = append(k.env, env...) }

// SetArgs gives the next Start other arguments.
func (k *Keeper) SetArgs(args ...string) { k.args = args }

// Start runs the keeper, again after Kill9 or Term, and waits until it answers.
func (k *Keeper) Start() {
	l := k.Host.lab
	l.tb.Helper()
	k.StartAnyway()
	l.Eventually(15*time.Second, fmt.Sprintf("keeper of %s answers", k.Host.Name), func() bool {
		if !k.process.Running() {
			l.tb.Fatalf("lab: keeper of %s ended with status %d:\n%s", k.Host.Name, k.process.Exit(0), k.process.Output())
		}
		c, err := net.Dial("unix", k.Socket)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	if r := k.Run("status"); r.Status != 0 {
		l.tb.Fatalf("lab: keeper of %s: status: %s", k.Host.Name, r.Stderr)
	}
}

// StartAnyway runs the keeper and does not wait.
func (k *Keeper) StartAnyway() *Process {
	l := k.Host.lab
	l.tb.Helper()
	args := append([]string{"--socket", k.Socket, "serve", "--state-dir", k.StateDir, "--log-level", "debug"}, k.args...)
	k.process = k.Host.StartCommand(newCommand(l.Binary(), args, k.env))
	k.process.Name = "keeper of " + k.Host.Name
	return k.process
}

// Process is the running keeper.
func (k *Keeper) Process() *Process { return k.process }

// Kill9 ends the keeper without a word.
func (k *Keeper) Kill9() { k.process.Kill9() }

// Term ends it as systemd would, and returns its exit status.
func (k *Keeper) Term() int { k.Host.lab.tb.Helper(); return k.process.Term() }

// Restart is Term and Start.
func (k *Keeper) Restart() {
	k.Host.lab.tb.Helper()
	k.Term()
	k.Start()
}

// Result is what a command printed and its exit status.
type Result struct {
	Args   []string
	Stdout string
	Stderr string
	Status int // 124: killed after a minute
	Took   time.Duration
}

func (r Result) String() string {
	return fmt.Sprintf("mvdhcp %s: status %d\n%s%s", strings.Join(r.Args, " "), r.Status, r.Stdout, r.Stderr)
}

// Run runs a command against the keeper, on its host.
func (k *Keeper) Run(args ...string) Result {
	k.Host.lab.tb.Helper()
	return k.Host.mvdhcp(nil, append([]string{"--socket", k.Socket}, args...)...)
}

// MustRun is Run that ends the test unless the status is 0. It returns what the
// command printed.
func (k *Keeper) MustRun(args ...string) string {
	k.Host.lab.tb.Helper()
	r := k.Run(args...)
	if r.Status != 0 {
		k.Host.lab.tb.Fatalf("lab: %v", r)
	}
	return r.Stdout
}

// JSON is MustRun with --json, decoded into v.
func (k *Keeper) JSON(v any, args ...string) {
	k.Host.lab.tb.Helper()
	out := k.MustRun(append(slices.Clone(args), "--json")...)
	k.Host.lab.must(json.Unmarshal([]byte(out), v), "mvdhcp %s --json prints %q", strings.Join(args, " "), out)
}

// Command is a command against the keeper that runs in the background, as
// `events` does.
func (k *Keeper) Command(args ...string) *Process {
	l := k.Host.lab
	l.tb.Helper()
	return k.Host.StartCommand(newCommand(l.Binary(), append([]string{"--socket", k.Socket}, args...), nil))
}

// Mvdhcp runs mvdhcp on the host with just these arguments, and env added to the
// environment.
func (h *Host) Mvdhcp(env []string, args ...string) Result {
	h.lab.tb.Helper()
	return h.mvdhcp(env, args...)
}

func (h *Host) mvdhcp(env []string, args ...string) Result {
	l := h.lab
	l.tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd := newCommand(l.Binary(), args, env)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	p, err := h.start(cmd)
	l.must(err, "%s: run mvdhcp", h.Name)
	p.quiet = true
	r := Result{Args: args}
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		p.Signal(unix.SIGQUIT) // Go programs print their goroutines
		select {
		case <-p.Done():
		case <-time.After(2 * time.Second):
			p.kill()
		}
		r.Status = 124
	}
	r.Took = time.Since(start)
	if r.Status == 0 {
		r.Status = p.Exit(0)
	}
	r.Stdout, r.Stderr = stdout.String(), stderr.String()
	return r
}
