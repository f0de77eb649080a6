// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func quiet(string, ...any) {}

func TestCacheMake(t *testing.T) {
	c := cache{t.TempDir()}
	bad := errors.New("bad")
	err := c.make("thing", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return bad
	})
	if !errors.Is(err, bad) || c.have("thing") {
		t.Errorf("error %v, there: %v; want a failure and nothing there", err, c.have("thing"))
	}
	if err := c.make("thing", func(string) error { return nil }); err != nil || !c.have("thing") {
		t.Errorf("error %v, there: %v", err, c.have("thing"))
	}
	if d := cmp.Diff([]string{"thing"}, list(t, c)); d != "" {
		t.Errorf("left in the cache:\n%s", d)
	}
}

func TestCacheTidy(t *testing.T) {
	c := cache{t.TempDir()}
	old := time.Now().Add(-unusedFor - time.Hour)
	for _, name := range []string{"image-old", "image-new", "image-used", "tmp-1", "old.deb", "lock"} {
		if err := os.Mkdir(c.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "image-new" && name != "tmp-1" {
			if err := os.Chtimes(c.path(name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !c.have("image-used") {
		t.Error("image-used isn't there")
	}
	c.tidy()
	if d := cmp.Diff([]string{"image-new", "image-used", "lock"}, list(t, c)); d != "" {
		t.Errorf("after tidy (-want +got):\n%s", d)
	}
}

func TestCacheLock(t *testing.T) {
	c := cache{t.TempDir()}
	unlock, err := c.lock(t.Context(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := c.lock(ctx, func(string, ...any) { close(waits) })
		result <- err
	}()
	<-waits
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("a lock while it is held gave %v, want to wait until the context ends", err)
	}
	unlock()
	// The one that gave up may still get it for a moment.
	unlock, err = c.lock(t.Context(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func list(t *testing.T, c cache) []string {
	t.Helper()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
