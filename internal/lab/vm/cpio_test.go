// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestArchive has another implementation of the format unpack what is written.
func TestArchive(t *testing.T) {
	busybox, err := find("busybox")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	content := map[string]string{
		"a":         "",
		"b/c/one":   "1",
		"b/c/two":   "22",
		"b/three":   "333",
		"b/four":    "4444",
		"long/name": strings.Repeat("x", 100_000),
	}
	var buf bytes.Buffer
	a := newArchive(&buf)
	for _, name := range sortedKeys(content) {
		a.file("/"+name, 0o640, content[name])
	}
	a.copy("/bin/script", script)
	a.symlink("/b/link", "c/two")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%4 != 0 {
		t.Errorf("the archive has %d bytes: another can't follow it", buf.Len())
	}

	dir := t.TempDir()
	cmd := exec.Command(busybox["busybox"], "cpio", "-id")
	cmd.Dir, cmd.Stdin = dir, &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v: %s", err, out)
	}
	got := map[string]string{}
	for name := range content {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		got[name] = string(data)
	}
	if d := cmp.Diff(content, got); d != "" {
		t.Errorf("files (-written +unpacked):\n%s", d)
	}
	if to, err := os.Readlink(filepath.Join(dir, "b/link")); to != "c/two" {
		t.Errorf("the link points to %q (%v), want c/two", to, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "bin/script")); err != nil || st.Mode() != 0o755 {
		t.Errorf("the script: %v, %v, want mode 0755", st, err)
	}
}

func TestArchiveRefuses(t *testing.T) {
	a := newArchive(&bytes.Buffer{})
	a.copy("/x", "/nonexistent/file")
	a.file("/y", 0o644, "later")
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "/nonexistent/file") {
		t.Errorf("error %v, want one that names the file", err)
	}
	a = newArchive(&bytes.Buffer{})
	a.copy("/x", t.TempDir())
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("error %v for a directory", err)
	}
}
