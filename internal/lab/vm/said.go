// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// reports is a writer that reads what the guest's init tells, a line of JSON
// each. It is for one goroutine at a time.
type reports struct {
	booted func()  // called when the command is about to start
	last   *report // how the command ended, once it has
	rest   []byte
}

func (r *reports) Write(p []byte) (int, error) {
	r.rest = append(r.rest, p...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			break
		}
		r.rest = rest
		var told report
		if err := json.Unmarshal(line, &told); err != nil {
			return 0, fmt.Errorf("the guest's init said %q: %w", line, err)
		}
		if told.Booted {
			r.booted()
		} else {
			r.last = &told
		}
	}
	if len(r.rest) > 64<<10 {
		return 0, fmt.Errorf("the guest's init said %d bytes without an end", len(r.rest))
	}
	return len(p), nil
}

// tail is a writer that keeps the end of what it gets. It is for one goroutine
// at a time.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return bytes.TrimSpace(t.buf) }

// String is what an error ends with: why the kernel panicked, if it did, and the
// last lines.
func (t *tail) String() string {
	lines := bytes.Split(bytes.ReplaceAll(t.bytes(), []byte("\r"), nil), []byte("\n"))
	var text strings.Builder
	for _, l := range lines {
		if _, why, ok := bytes.Cut(l, []byte("Kernel panic")); ok {
			fmt.Fprintf(&text, "; Kernel panic%s", why)
			break
		}
	}
	if len(t.bytes()) == 0 {
		return "; the console is empty"
	}
	last := lines[max(0, len(lines)-30):]
	fmt.Fprintf(&text, "; the console's last lines:\n\t%s", bytes.Join(last, []byte("\n\t")))
	return text.String()
}
