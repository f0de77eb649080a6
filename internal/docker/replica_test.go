// SPDX-License-Identifier: Apache-2.0

package docker

import "testing"

func TestReplica(t *testing.T) {
	for name, want := range map[string]string{
		"web":                                 "web",
		"web.1.i5qkf7xm7mj74yooyt09ecd5s":     "web.1",
		"my.web.12.i5qkf7xm7mj74yooyt09ecd5s": "my.web.12",
		"agent.3brer57d4o4wpg5d0c4rzsdql.i5qkf7xm7mj74yooyt09ecd5s": "agent.3brer57d4o4wpg5d0c4rzsdql",
		"web.i5qkf7xm7mj74yooyt09ecd5s":                             "web.i5qkf7xm7mj74yooyt09ecd5s",
		"web.1.short":                                               "web.1.short",
		"":                                                          "",
	} {
		if got := replica(name); got != want {
			t.Errorf("%q is of replica %q, want %q", name, got, want)
		}
	}
}
