// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestReadIdle reads a file that a process empties and fills again all the time,
// resting now and then.
func TestReadIdle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	const full = "one\ntwo\n"
	if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	// Each builtin writes at once. The pipe never says anything: a rest.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("bash", "-c", `while :; do : >"$0"; echo one >>"$0"; echo two >>"$0"; read -t 0.002; done`, path)
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	end := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	defer end()
	half := 0
	for range 1000 {
		if data, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if string(data) != full {
			half++
		}
		data, err := ReadIdle(cmd.Process.Pid, path, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if string(data) != full {
			t.Fatalf("read %q", data)
		}
	}
	t.Logf("%d of 1000 other reads were of half a file", half)
	end()
	if data, err := ReadIdle(cmd.Process.Pid, filepath.Join(t.TempDir(), "none"), time.Minute); !os.IsNotExist(err) {
		t.Errorf("after its end, of no file: %q, %v", data, err)
	}
}
