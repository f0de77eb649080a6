// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"mvdhcp/internal/lab"
)

// TestRealDemo tells the whole story.
func TestRealDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("left out by -short: needs root and network namespaces")
	}
	if err := lab.Run(t.Context(), t.Logf, tell); err != nil {
		t.Error(err)
	}
}
