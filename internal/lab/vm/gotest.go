// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOptions say which tests to run in the machine.
type TestOptions struct {
	Package string // import path
	Tags    string // build tags, with commas
	Run     string // -test.run; empty: all
	Skip    string // -test.skip; empty: none

	// Options of the machine; Command and Stdout are RunTests' own. Whatever
	// the tests read beside themselves, testdata too, goes into Files.
	Options
}

// RunTests compiles a package's tests, runs them in a machine and repeats each
// as a subtest of t, with its output. A test that did not end, a machine that
// died and a run without any test are failures.
func RunTests(t *testing.T, o TestOptions) {
	t.Helper()
	binary, err := compileTests(t.Context(), o.Package, o.Tags, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	inGuest := "/test/" + path.Base(o.Package) + ".test"
	files := map[string]string{inGuest: binary}
	for to, from := range o.Files {
		files[to] = from
	}
	o.Files = files
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Minute // on a busy machine; an idle one takes a fifth
	}
	// The tests give up first, with the stacks of all goroutines.
	limit := o.Timeout - min(20*time.Second, o.Timeout/2)
	o.Command = []string{inGuest, "-test.v=test2json", "-test.run", o.Run, "-test.skip", o.Skip, "-test.timeout", limit.String()}
	var said bytes.Buffer
	o.Stdout = &said
	if o.Log == nil {
		o.Log = t.Output()
	}
	start := time.Now()
	exit, err := Run(t.Context(), o.Options)
	t.Logf("%s: %.1f s with the machine's boot", o.Package, time.Since(start).Seconds())
	results, e := parse(t.Context(), &said)
	if e != nil {
		t.Fatalf("%v; the tests said:\n%s", errors.Join(err, e), said.Bytes())
	}
	results.repeat(t)
	switch {
	case err != nil:
		t.Errorf("%v\nthe tests said:\n%s", err, results.output.String())
	case len(results.children) == 0:
		t.Errorf("no test of %s matches %q:\n%s", o.Package, o.Run, results.output.String())
	case exit != 0:
		t.Errorf("the tests ended with status %d:\n%s", exit, results.output.String())
	}
}

// Build compiles a command of this module without cgo, so that it runs in any
// guest, and returns the file, which goes with the test.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), path.Base(pkg))
	if out, err := goTool(t.Context(), "build", "-o", file, pkg); err != nil {
		t.Fatalf("compile %s: %v\n%s", pkg, err, out)
	}
	return file
}

func compileTests(ctx context.Context, pkg, tags, dir string) (string, error) {
	file := filepath.Join(dir, "tests")
	out, err := goTool(ctx, "test", "-c", "-vet=off", "-tags", tags, "-o", file, pkg)
	if err != nil {
		return "", fmt.Errorf("compile the tests of %s: %w\n%s", pkg, err, out)
	}
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("compile the tests of %s with tags %q: there are none: %s",
			pkg, tags, bytes.TrimSpace(out))
	}
	return file, nil
}

func goTool(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	return cmd.CombinedOutput()
}

// repeat gives each test of the guest its subtest.
func (r *result) repeat(t *testing.T) {
	for _, c := range r.children {
		t.Run(c.name, func(t *testing.T) {
			c.repeat(t)
			text := "in the VM:\n" + strings.TrimRight(c.output.String(), "\n")
			switch {
			case c.action == "pass":
				t.Log(text)
			case c.action == "skip":
				t.Skip(text)
			case c.action == "fail" && t.Failed(): // by one of its subtests
				t.Log(text)
			case c.action == "fail":
				t.Error(text)
			default:
				t.Errorf("did not end: %s", text)
			}
		})
	}
}
