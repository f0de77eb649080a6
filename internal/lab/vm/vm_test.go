// SPDX-License-Identifier: Apache-2.0

package vm

import "testing"

// TestTrunkInVM runs the tests that need 802.1Q with the mvdhcp command.
func TestTrunkInVM(t *testing.T) {
	RunTests(t, TestOptions{
		Package: "mvdhcp/internal/lab/vm/trunk", Tags: "vm",
		Options: Options{Files: map[string]string{"/usr/bin/mvdhcp": Build(t, "mvdhcp/cmd/mvdhcp")}},
	})
}

// TestProvisionInVM runs those of provision's tests that make VLAN links.
func TestProvisionInVM(t *testing.T) {
	RunTests(t, TestOptions{Package: "mvdhcp/provision", Run: "VLAN"})
}
