// SPDX-License-Identifier: Apache-2.0

package units_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"mvdhcp/internal/lab"
)

// mostExposure is what `systemd-analyze security` may say of the service, times
// ten. What is left is what the keeper lives by: root, its capabilities, sockets,
// the host's network and processes.
const mostExposure = "35"

// TestRealVerify has systemd read the units and judge the service.
func TestRealVerify(t *testing.T) {
	l := lab.New(t)
	var files []string
	for name, text := range l.Units() {
		p := filepath.Join(l.Dir(), name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	analyze := func(args ...string) (string, error) {
		out, err := exec.Command(l.Tool("systemd-analyze"), args...).CombinedOutput()
		return string(out), err
	}
	if out, err := analyze(append([]string{"verify", "--man=no"}, files...)...); err != nil || out != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	service := filepath.Join(l.Dir(), "mvdhcp.service")
	if out, err := analyze("security", "--offline=true", "--threshold="+mostExposure, service); err != nil {
		t.Errorf("systemd-analyze security --threshold=%s: %v\n%s", mostExposure, err, out)
	}
}
