// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// trunk is the package of the tests that need 802.1Q.
const trunk = "mvdhcp/internal/lab/vm/trunk"

// TestTrunkInVM runs the tests that need 802.1Q with the mvdhcp command.
func TestTrunkInVM(t *testing.T) {
	RunTests(t, TestOptions{
		Package: trunk, Tags: "vm", Skip: "^(TestArticle|TestReboot)$",
		Options: Options{
			Files:    map[string]string{"/usr/bin/mvdhcp": Build(t, "mvdhcp/cmd/mvdhcp")},
			Programs: []string{"tc"},
			Cable:    true,
		},
	})
}

// TestEngineInVM runs the test that needs a Docker engine on top of it.
func TestEngineInVM(t *testing.T) {
	RunTests(t, TestOptions{
		Package: trunk, Tags: "vm", Run: "^TestArticle$",
		Options: Options{
			Files:    map[string]string{"/usr/bin/mvdhcp": Build(t, "mvdhcp/cmd/mvdhcp")},
			Programs: []string{"containerd", "containerd-shim-runc-v2", "runc", "dockerd", "docker"},
			Memory:   3072,
		},
	})
}

// TestProvisionInVM runs provision's tests where there are VLAN links, and on a
// kernel other than this machine's.
func TestProvisionInVM(t *testing.T) {
	RunTests(t, TestOptions{Package: "mvdhcp/provision", Options: Options{Modules: []string{"8021q"}}})
}

// TestRebootInVM gives a machine with a disk several lives, each but the last of
// which ends with a loss of power while leases are being made.
func TestRebootInVM(t *testing.T) {
	// Each life but the last ends at so many writes to the keeper's store.
	powerCuts := []int{30, 61}
	binary, err := compileTests(t.Context(), trunk, "vm", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mvdhcp := Build(t, "mvdhcp/cmd/mvdhcp")
	disk := filepath.Join(t.TempDir(), "disk")
	for n, writes := range powerCuts {
		var said bytes.Buffer
		exit, err := Run(t.Context(), Options{
			Command: []string{"/test/trunk.test", "-test.run=^TestReboot$", "-test.v"},
			Files:   map[string]string{"/test/trunk.test": binary, "/usr/bin/mvdhcp": mvdhcp},
			Env:     []string{fmt.Sprintf("POWERCUT=%d", writes)},
			Disk:    disk, Stdout: &said, Log: t.Output(),
		})
		if !errors.Is(err, ErrDied) || !strings.Contains(said.String(), "the power fails at") {
			t.Fatalf("life %d: exit %d, error %v, want a loss of power; it said:\n%s", n+1, exit, err, &said)
		}
	}
	RunTests(t, TestOptions{
		Package: trunk, Tags: "vm", Run: "^TestReboot$",
		Options: Options{
			Files: map[string]string{"/usr/bin/mvdhcp": mvdhcp},
			Env:   []string{"REBOOT=last"}, Disk: disk,
		},
	})
}
