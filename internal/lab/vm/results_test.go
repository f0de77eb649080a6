// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	// As -test.v=test2json prints it, with its ^V before each frame.
	said := strings.ReplaceAll(`^=== RUN   TestA
^=== RUN   TestA/x
^=== RUN   TestA/x/1/2
    a_test.go:1: broken
^--- FAIL: TestA (0.10s)
    ^--- FAIL: TestA/x (0.10s)
        ^--- FAIL: TestA/x/1/2 (0.10s)
^=== RUN   TestB
    b_test.go:1: no reason
^--- SKIP: TestB (0.00s)
^=== RUN   TestC
^--- PASS: TestC (0.00s)
^=== RUN   TestD
working
`, "^", "\x16")
	root, err := parse(t.Context(), strings.NewReader(said))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func(r *result, depth int)
	walk = func(r *result, depth int) {
		for _, c := range r.children {
			got = append(got, fmt.Sprintf("%d %s %q", depth, c.name, c.action))
			walk(c, depth+1)
		}
	}
	walk(root, 0)
	want := []string{
		`0 TestA "fail"`, `1 x "fail"`, `2 1/2 "fail"`, `0 TestB "skip"`, `0 TestC "pass"`, `0 TestD ""`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for i, text := range map[int]string{0: "broken", 1: "no reason", 3: "working"} {
		r := root.children[i]
		for len(r.children) > 0 {
			r = r.children[0]
		}
		if !strings.Contains(r.output.String(), text) {
			t.Errorf("the output of %s is %q, want %q in it", r.name, r.output.String(), text)
		}
	}
}
