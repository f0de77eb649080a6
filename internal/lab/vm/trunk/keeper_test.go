// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// keeper is a running "mvdhcp serve", and the command line that speaks to it.
type keeper struct {
	t    *testing.T
	dir  string // of its socket, state and log
	args []string
	proc *exec.Cmd
}

// answer is how one command ended.
type answer struct {
	status         int
	stdout, stderr string
}

// lease is what the tests read of a lease's JSON.
type lease struct {
	State   string `json:"state"`
	Target  string `json:"target"`
	Ifname  string `json:"ifname"`
	Parent  string `json:"parent"`
	MAC     string `json:"mac"`
	Address string `json:"address"`
	Gateway string `json:"gateway"`
	Server  string `json:"server"`
	Renewed int    `json:"renewals"`
	// ParentState is "up" while the parent can carry traffic.
	ParentState string `json:"parent_state"`
}

// newKeeper starts a keeper, with more arguments for serve, that goes with the
// test. Its log is shown when the test fails.
func newKeeper(t *testing.T, args ...string) *keeper {
	t.Helper()
	return newKeeperIn(t, t.TempDir(), args...)
}

func newKeeperIn(t *testing.T, dir string, args ...string) *keeper {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, dir: dir, args: args}
	t.Cleanup(func() {
		k.stop(syscall.SIGTERM)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(k.dir, "log"))
			t.Logf("the keeper:\n%s", log)
		}
	})
	k.start()
	return k
}

// start returns when the keeper answers.
func (k *keeper) start() {
	k.t.Helper()
	log, err := os.OpenFile(filepath.Join(k.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	defer log.Close()
	k.proc = exec.Command("mvdhcp", append([]string{"--socket", k.socket(), "serve",
		"--state-dir", filepath.Join(k.dir, "state"), "--log-level", "debug"}, k.args...)...)
	k.proc.Stdout, k.proc.Stderr = log, log
	if err := k.proc.Start(); err != nil {
		k.t.Fatalf("start the keeper: %v", err)
	}
	// Each try takes a whole process: no need for a pause between them.
	for end := time.Now().Add(patience); k.do("status").status != 0; {
		if time.Now().After(end) {
			k.t.Fatalf("the keeper does not answer: %s", k.do("status").stderr)
		}
	}
}

// stop ends the keeper by a signal and waits for it.
func (k *keeper) stop(sig syscall.Signal) {
	if k.proc == nil {
		return
	}
	_ = k.proc.Process.Signal(sig)
	ended := make(chan error, 1)
	go func() { ended <- k.proc.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if sig == syscall.SIGTERM && err != nil && errors.As(err, &exit) {
			k.t.Errorf("the keeper ended with %v on SIGTERM", exit)
		}
	case <-time.After(patience):
		_ = k.proc.Process.Kill()
		<-ended
		k.t.Errorf("the keeper did not end on %v", sig)
	}
	k.proc = nil
}

func (k *keeper) socket() string { return filepath.Join(k.dir, "s.sock") }

// do runs one command.
func (k *keeper) do(args ...string) answer {
	k.t.Helper()
	cmd := exec.Command("mvdhcp", append([]string{"--socket", k.socket()}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		k.t.Fatalf("mvdhcp %s: %v", strings.Join(args, " "), err)
	}
	return answer{cmd.ProcessState.ExitCode(), stdout.String(), strings.TrimSpace(stderr.String())}
}

// attach attaches a namespace, by name, and returns its lease.
func (k *keeper) attach(ns, parent string) lease {
	k.t.Helper()
	a := k.do("attach", "netns:"+ns, "--parent", parent, "--json")
	if a.status != 0 {
		k.t.Fatalf("attach of %s to %s: status %d: %s", ns, parent, a.status, a.stderr)
	}
	var l lease
	if err := json.Unmarshal([]byte(a.stdout), &l); err != nil {
		k.t.Fatalf("attach of %s printed %q: %v", ns, a.stdout, err)
	}
	if l.State != "bound" {
		k.t.Fatalf("attach of %s: state %q, want bound", ns, l.State)
	}
	return l
}

func (k *keeper) detach(ns string) {
	k.t.Helper()
	if a := k.do("detach", "netns:"+ns); a.status != 0 {
		k.t.Fatalf("detach of %s: status %d: %s", ns, a.status, a.stderr)
	}
}

// leases are those the keeper lists.
func (k *keeper) leases() []lease {
	k.t.Helper()
	a := k.do("leases", "--json")
	var list []lease
	if err := json.Unmarshal([]byte(a.stdout), &list); err != nil {
		k.t.Fatalf("leases --json: status %d, %q, %s: %v", a.status, a.stdout, a.stderr, err)
	}
	return list
}

// await returns when the leases are as they should be. Each look takes a whole
// process: no need for a pause between them.
func (k *keeper) await(what string, so func([]lease) bool) {
	k.t.Helper()
	for end := time.Now().Add(patience); ; {
		list := k.leases()
		if so(list) {
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("not within %v: %s; the leases are %+v", patience, what, list)
		}
	}
}

// granted checks a lease where it counts: at the server of the VLAN, in the
// namespace, and by a ping to the server.
func (l *lan) granted(ns string, vid int, got lease) {
	l.t.Helper()
	held := l.servers[vid].holds(got.MAC, network[vid])
	child := links(l.t, ns)[got.Ifname]
	if child.Info.Kind != "macvlan" || child.MAC != got.MAC {
		l.t.Errorf("%s in %s is a %q with MAC %s, want a macvlan with %s",
			got.Ifname, ns, child.Info.Kind, child.MAC, got.MAC)
	}
	own := child.ipv4()
	if !slices.Equal(own, []string{held}) || got.Address != held+"/24" {
		l.t.Errorf("the server holds %s, the lease says %s, the link has %v", held, got.Address, own)
	}
	ip(l.t, "netns exec "+ns+" busybox ping -c 1 -W 10 "+network[vid].Addr().Next().String())
}

// bare checks that a namespace has nothing but its loopback.
func bare(t *testing.T, ns string) {
	t.Helper()
	for name := range links(t, ns) {
		if name != "lo" {
			t.Errorf("%s is left in %s", name, ns)
		}
	}
}

// unload takes a module out of the kernel, if it is there.
func unload(t *testing.T, module string) {
	t.Helper()
	if loaded(module) {
		command(t, "rmmod", module)
	}
	if _, err := os.Stat("/sys/module/" + module); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the module %s is still loaded", module)
	}
}
