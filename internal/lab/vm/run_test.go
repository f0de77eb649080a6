// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sh runs a shell script in the machine.
func sh(t *testing.T, script string, o Options) (output string, exit int, err error) {
	t.Helper()
	var out bytes.Buffer
	o.Command = []string{"sh", "-c", script}
	o.Stdout, o.Log = &out, t.Output()
	exit, err = Run(t.Context(), o)
	return out.String(), exit, err
}

// TestRun: the command gets what it is promised, and what it says comes back
// whole.
func TestRun(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho from a file: $1 $PWD $WHO $MVDHCP_VM\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, exit, err := sh(t, `/opt/script arg; /sbin/ip -br link show lo; /usr/bin/stat -c %a /tmp
		lsmod | grep -c ^dummy; grep -c cgroup2 /proc/mounts; /usr/bin/xz --version | head -1
		seq 1 300000; (sleep 0.1; echo late >&2) & exit 7`, Options{
		Env: []string{"WHO=me"}, Dir: "/run", Modules: []string{"dummy"},
		Files: map[string]string{"/opt/script": script}, Programs: []string{"xz"},
	})
	if err != nil || exit != 7 {
		t.Fatalf("exit %d, error %v, want 7; the output ends %q", exit, err, got[max(0, len(got)-300):])
	}
	for _, want := range []string{
		"from a file: arg /run me 1\n", "lo               UNKNOWN", "\n1777\n1\n1\nxz (XZ Utils)", "\n299999\n300000\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the output %.400s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n < 300_000 {
		t.Errorf("%d lines came back, want more than 300000", n)
	}
}

// TestRunFails: each way to fail has its own error, with the console's end.
func TestRunFails(t *testing.T) {
	for _, c := range []struct {
		test, script string
		options      Options
		is           error
		says         string
	}{
		{"panic", "echo c >/proc/sysrq-trigger; sleep 60", Options{}, ErrDied, "; Kernel panic - not syncing: sysrq triggered crash; the console"},
		{"no power", "echo b >/proc/sysrq-trigger; sleep 60", Options{}, ErrDied, "console"},
		{"too long", "sleep 600", Options{Timeout: time.Second}, ErrTimeout, "Run /init as init process"},
		{"no module", "", Options{Modules: []string{"nosuch"}}, nil, "modprobe"},
	} {
		t.Run(c.test, func(t *testing.T) {
			_, exit, err := sh(t, c.script, c.options)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("exit %d, error %v; want %v, with %q", exit, err, c.is, c.says)
			}
		})
	}
	_, err := Run(t.Context(), Options{Command: []string{"/nonexistent"}})
	if err == nil || !strings.Contains(err.Error(), "run /nonexistent") {
		t.Errorf("error %v for a command that isn't there", err)
	}
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("no error without a command")
	}
}

// TestNoBoot: a machine that doesn't come up is tried again, and then given up.
func TestNoBoot(t *testing.T) {
	defer func(d time.Duration) { bootLimit = d }(bootLimit)
	bootLimit = time.Millisecond
	var log bytes.Buffer
	_, err := Run(t.Context(), Options{Command: []string{"true"}, Log: &log})
	if !errors.Is(err, errNoBoot) || strings.Count(log.String(), "starting it again") != boots-1 {
		t.Errorf("error %v, want %v after %d boots; the log:\n%s", err, errNoBoot, boots, &log)
	}
}

// TestDisk: what was synced survives a loss of power, and the machine stops at
// once when its context ends.
func TestDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk, with a comma")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Run(ctx, Options{
		Command: []string{"sh", "-c", "echo kept >/disk/kept; sync; echo lost >/disk/lost; echo ready; sleep 600"},
		Disk:    disk, Stdout: when("ready", cancel), Log: t.Output(),
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want that of the context", err)
	}
	got, exit, err := sh(t, "cat /disk/kept; ls /disk; kill -9 $$", Options{Disk: disk})
	if err != nil || exit != 128+9 || !strings.HasPrefix(got, "kept\n") || strings.Contains(got, "lost\n") {
		t.Errorf("the second boot: exit %d, error %v, %q; want 137 and what was synced alone", exit, err, got)
	}
}

// when calls do at the first time a text comes.
func when(text string, do func()) *trigger { return &trigger{text: text, do: do} }

type trigger struct {
	text string
	seen []byte
	do   func()
}

func (w *trigger) Write(p []byte) (int, error) {
	w.seen = append(w.seen, p...)
	if w.do != nil && bytes.Contains(w.seen, []byte(w.text)) {
		w.do()
		w.do = nil
	}
	return len(p), nil
}

func TestTail(t *testing.T) {
	w := &tail{max: 1000}
	for i := range 1000 {
		fmt.Fprintf(w, "line %d\r\n", i)
	}
	if got := w.String(); len(w.buf) > 1000 || strings.Count(got, "\n") != 30 ||
		!strings.HasSuffix(got, "\n\tline 999") || strings.Contains(got, "\r") {
		t.Errorf("%d bytes kept: %q", len(w.buf), got)
	}
	fmt.Fprintf(w, "[    2.1] Kernel panic - not syncing: bad\n%s", strings.Repeat("trace\n", 50))
	if got := w.String(); !strings.HasPrefix(got, "; Kernel panic - not syncing: bad; ") {
		t.Errorf("the panic is not where it is seen: %q", got)
	}
	if got := (&tail{}).String(); got != "; the console is empty" {
		t.Errorf("an empty one says %q", got)
	}
}
