// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"mvdhcp/internal/lab"
)

// TestRealDockerRun runs every way twice.
func TestRealDockerRun(t *testing.T) {
	r, err := measure(lab.New(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	r.print(t.Output())
	for _, x := range r.Results {
		if x.Median <= 0 || x.Ratio <= 0 {
			t.Errorf("%s: %+v", x.Network, x)
		}
	}
}
