// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "mvdhcp/"
	license  = "SPDX-License-Identifier: Apache-2.0"
	mostLine = 500
)

// source is one file of the module that people write.
type source struct {
	path string // from the module's root, with slashes
	text string
}

func (s source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("the module's root is not where it was: %v", err)
	}
	var all []source
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel == ".git" || filepath.Base(rel) == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		script := strings.HasSuffix(rel, ".sh") || strings.HasPrefix(rel, ".ci/") || rel == "Makefile"
		if !d.Type().IsRegular() || !strings.HasSuffix(rel, ".go") && !script {
			return nil
		}
		text, err := os.ReadFile(path)
		all = append(all, source{rel, string(text)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d source files: this does not see the module", len(all))
	}
	return all
}

func TestLicense(t *testing.T) {
	for _, s := range sources(t) {
		head := strings.SplitN(s.text, "\n", 4)
		want := "# " + license
		lines := head[:min(2, len(head))] // the second one after #!
		if strings.HasSuffix(s.path, ".go") {
			want = "// " + license
			lines = head[:1]
		}
		if !slices.Contains(lines, want) {
			t.Errorf("%s: does not begin with %q", s.path, want)
		}
	}
}

func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > mostLine {
			t.Errorf("%s: %d lines; more than %d are not read in one sitting", s.path, n, mostLine)
		}
	}
}

// mayImport says which of the module's packages a package may import; folders
// stand for all below them. What is not listed may import nothing of the module.
var mayImport = []struct {
	dir   string
	other []string
}{
	// The lab's programs and tests stand outside of the program and use all of it.
	{"internal/lab", []string{"cmd", "internal", "lease", "dhcpclient", "provision"}},
	{"cmd", []string{"cmd", "internal/daemon", "internal/api", "internal/doctor", "internal/docker", "internal/probe", "dhcpclient/wire", "provision"}},
	{"internal/daemon", []string{"internal/daemon", "internal/api", "internal/docker", "internal/doctor", "internal/probe", "lease", "dhcpclient", "provision"}},
	{"internal/doctor", []string{"internal/doctor", "internal/probe", "internal/api", "internal/docker", "dhcpclient", "provision"}},
	{"internal/probe", []string{"dhcpclient", "provision"}},
	{"internal/docker", []string{"internal/docker", "lease", "dhcpclient", "provision"}},
	{"internal/api", []string{"internal/api", "internal/docker", "lease", "dhcpclient", "provision"}},
	{"lease", []string{"lease", "dhcpclient", "provision"}},
	{"dhcpclient", []string{"dhcpclient"}},
	{"provision", []string{"provision"}},
}

// forTests are the packages that a test may import as well. A test in a package
// of its own (x_test) is a user like any other and imports what it likes.
var forTests = []string{"internal/lab", "internal/api"}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasSuffix(s.path, ".go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), s.path, s.text, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
			continue
		}
		allowed, known := allowedFor(s.dir())
		if !known {
			t.Errorf("%s: folder %s has no place in the layout", s.path, s.dir())
			continue
		}
		if strings.HasSuffix(file.Name.Name, "_test") {
			continue
		}
		if strings.HasSuffix(s.path, "_test.go") {
			allowed = append(slices.Clone(allowed), forTests...)
			allowed = append(allowed, s.dir())
		}
		for _, i := range file.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			other, ours := strings.CutPrefix(path, module)
			if ours && !slices.ContainsFunc(allowed, func(dir string) bool { return below(other, dir) }) {
				t.Errorf("%s: imports %s, which %s may not", s.path, path, s.dir())
			}
		}
	}
}

func allowedFor(dir string) ([]string, bool) {
	for _, m := range mayImport {
		if below(dir, m.dir) {
			return m.other, true
		}
	}
	return nil, false
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// TestNames keeps packages and files named after what they do.
func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		base := strings.TrimSuffix(filepath.Base(s.path), ".go")
		for _, word := range []string{"util", "utils", "common", "helper", "helpers", "misc"} {
			if base == word || slices.Contains(strings.Split(s.dir(), "/"), word) {
				t.Errorf("%s: %q says nothing of what is in it", s.path, word)
			}
		}
	}
}

// TestDoc has every package say what it is.
func TestDoc(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if strings.HasSuffix(s.path, ".go") {
			seen[s.dir()] = seen[s.dir()] || filepath.Base(s.path) == "doc.go"
		}
	}
	for dir, has := range seen {
		if !has {
			t.Errorf("%s: no doc.go", dir)
		}
	}
}
