// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// result is a test with its subtests, or, as the root, all of a package's.
type result struct {
	name     string // the last part
	action   string // pass, fail, skip; empty while it runs
	output   strings.Builder
	children []*result
}

// event is what go tool test2json prints, one a line.
type event struct {
	Action string
	Test   string
	Output string
}

// parse reads what a test binary said under -test.v=test2json.
func parse(ctx context.Context, said io.Reader) (*result, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = said
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return gather(bytes.NewReader(out))
}

// gather makes a tree of test2json's events.
func gather(events io.Reader) (*result, error) {
	root := &result{}
	all := map[string]*result{"": root}
	for d := json.NewDecoder(events); ; {
		var e event
		err := d.Decode(&e)
		if err == io.EOF {
			return root, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read test2json's events: %w", err)
		}
		r := all[e.Test]
		if r == nil {
			r = root.add(all, e.Test)
		}
		switch e.Action {
		case "output":
			r.output.WriteString(e.Output)
		case "pass", "fail", "skip":
			r.action = e.Action
		}
	}
}

// add puts a test below the nearest one above it that ran: a slash may also be
// part of a subtest's own name.
func (r *result) add(all map[string]*result, test string) *result {
	parent, name := r, test
	for i := strings.LastIndex(test, "/"); i > 0; i = strings.LastIndex(test[:i], "/") {
		if p := all[test[:i]]; p != nil {
			parent, name = p, test[i+1:]
			break
		}
	}
	c := &result{name: name}
	parent.children = append(parent.children, c)
	all[test] = c
	return c
}
