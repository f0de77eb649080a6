// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// victimEnv makes TestVictim build a lab and wait to be killed.
const victimEnv = "MVDHCP_LAB_VICTIM"

// TestVictim is the other process of TestNothingStays.
func TestVictim(t *testing.T) {
	how := os.Getenv(victimEnv)
	if how == "" {
		return // runs only as another test's child
	}
	l := New(t)
	s := l.Dnsmasq(ServerOptions{})
	h := l.Host("h")
	c := l.Container("c")
	gone := l.Container("gone")
	p, q := c.Sleep(), gone.Sleep()
	gone.Delete() // its name, not its process
	orphan := h.Start("busybox", "sh", "-c", "busybox sleep 1000 & echo $!")
	orphan.AwaitOutput(5*time.Second, "\n")
	// A child in a namespace of its own, as a container engine has.
	engine := h.Start("busybox", "sh", "-c", "busybox unshare -n busybox sleep 1000 & echo $!; wait")
	engine.AwaitOutput(5*time.Second, "\n")
	var child, contained int
	fmt.Sscan(orphan.Output(), &child)
	fmt.Sscan(engine.Output(), &contained)
	mount := filepath.Join(l.Dir(), "mount")
	l.must(os.Mkdir(mount, 0o755), "make a directory")
	l.must(unix.Mount("lab", mount, "tmpfs", 0, "size=1m"), "mount")
	fmt.Printf("victim %s %d %d %d %d %d\n", l.id, s.Process().PID, p.PID, q.PID, child, contained)
	switch how {
	case "fail":
		t.Fatal("as asked")
	case "panic":
		panic("as asked")
	}
	select {}
}

// TestNothingStays ends a test process in several ways and looks for what it
// leaves: namespaces, directories and processes.
func TestNothingStays(t *testing.T) {
	New(t) // skips with -short
	for _, tt := range []struct {
		how    string
		signal syscall.Signal
	}{
		{"SIGKILL", unix.SIGKILL},
		{"SIGINT", unix.SIGINT},
		{"SIGTERM", unix.SIGTERM},
		{"fail", 0},
		{"panic", 0},
	} {
		t.Run(tt.how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestVictim$", "-test.v")
			cmd.Env = append(os.Environ(), victimEnv+"="+tt.how)
			// Ctrl-C goes to the whole process group.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var id string
			pids := make([]int, 5)
			var seen strings.Builder
			lines := bufio.NewScanner(out)
			for id == "" && lines.Scan() {
				seen.WriteString(lines.Text() + "\n")
				if n, _ := fmt.Sscanf(lines.Text(), "victim %s %d %d %d %d %d",
					&id, &pids[0], &pids[1], &pids[2], &pids[3], &pids[4]); n != 6 {
					id = ""
				}
			}
			if id == "" {
				t.Fatalf("the victim made no lab:\n%s", seen.String())
			}
			starts := make([]string, len(pids))
			for i, pid := range pids {
				starts[i] = startTime(pid)
			}
			if tt.signal != 0 {
				if len(left(id)) < 5 {
					t.Errorf("only %v is there: nothing to remove", left(id))
				}
				for i, s := range starts {
					if s == "" {
						t.Errorf("process %d of %v does not run: nothing to kill", i, pids)
					}
				}
				if err := unix.Kill(-cmd.Process.Pid, tt.signal); err != nil {
					t.Fatal(err)
				}
			}
			for lines.Scan() {
			}
			_ = cmd.Wait()

			deadline := time.Now().Add(20 * time.Second)
			for {
				rest := left(id)
				for i, pid := range pids {
					if s := startTime(pid); s != "" && s == starts[i] {
						rest = append(rest, fmt.Sprintf("process %d", pid))
					}
				}
				if len(rest) == 0 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("still there: %v", rest)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// left is what carries a lab's name.
func left(id string) []string {
	a, _ := filepath.Glob(filepath.Join(netnsDir, id+"*"))
	b, _ := filepath.Glob(filepath.Join(os.TempDir(), id+"*"))
	return append(a, b...)
}

// TestSweepDead removes what a process left whose watchdog died with it, and
// nothing of a process that lives.
func TestSweepDead(t *testing.T) {
	mine := New(t).Container("mine")
	// The id of a living process with another start time: it was used again.
	for _, owner := range []string{fmt.Sprintf("lab%d-0-1", os.Getpid()), "lab4194305-0-1"} {
		dir := filepath.Join(os.TempDir(), owner)
		if err := os.MkdirAll(filepath.Join(dir, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(netnsDir, owner+"-web")
		if err := createNS(path); err != nil {
			t.Fatal(err)
		}
		sleeper := exec.Command("/proc/self/exe")
		sleeper.Env = append(os.Environ(), sleeperEnv+"=1")
		if err := inNS(path, sleeper.Start); err != nil {
			t.Fatal(err)
		}
		sweepDead()
		if rest := left(owner); len(rest) != 0 {
			t.Errorf("still there: %v", rest)
		}
		var exit *exec.ExitError
		if err := sleeper.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
			t.Errorf("the process in %s ended with %v, not by SIGKILL", owner, err)
		}
	}
	if _, err := os.Stat(mine.Path); err != nil {
		t.Errorf("a living lab's namespace went as well: %v", err)
	}
}

// TestRun has a program's lab go, and the error come back, however it ends.
func TestRun(t *testing.T) {
	New(t) // skips with -short
	bad := errors.New("bad")
	for _, tt := range []struct {
		name string
		f    func(*Lab) error
		want string
	}{
		{"well", func(*Lab) error { return nil }, ""},
		{"error", func(*Lab) error { return bad }, "bad"},
		{"fatal", func(l *Lab) error { l.Host("h").DeleteLink("none"); return nil }, "h: delete none"},
		{"goexit in the middle", func(l *Lab) error { l.Tool("no-such-tool"); return nil }, "program no-such-tool is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var id string
			err := Run(context.Background(), t.Logf, func(l *Lab) error {
				id = l.id
				l.Container("c").Sleep()
				return tt.f(l)
			})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if rest := left(id); len(rest) != 0 {
				t.Errorf("still there: %v", rest)
			}
		})
	}
}

// TestMissingTool names the package.
func TestMissingTool(t *testing.T) {
	packageOf["no-such-program"] = "some-package"
	defer delete(packageOf, "no-such-program")
	_, err := tool("no-such-program")
	if err == nil || err.Error() != "program no-such-program is missing: apt-get install some-package" {
		t.Errorf("error %v", err)
	}
}
