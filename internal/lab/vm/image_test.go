// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestConcurrentBuilders: of many builders one builds, all get the same image,
// and what another left half done is gone.
func TestConcurrentBuilders(t *testing.T) {
	if _, err := BuildImage(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
	user, err := openCache()
	if err != nil {
		t.Fatal(err)
	}
	kernel := (&builder{cache: user}).newestDeb()
	compiled, err := goTool(t.Context(), "env", "GOCACHE") // it moves along otherwise
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(compiled)))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	own, err := openCache()
	if err != nil {
		t.Fatal(err)
	}
	if kernel != "" { // else it is downloaded
		data, err := os.ReadFile(user.path(kernel))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(own.path(kernel), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(own.path("tmp-left"), 0o755); err != nil {
		t.Fatal(err)
	}

	log := &safeBuffer{}
	images := make([]Image, 3)
	errs := make([]error, len(images))
	var all sync.WaitGroup
	for i := range images {
		all.Go(func() { images[i], errs[i] = BuildImage(t.Context(), log) })
	}
	all.Wait()
	for i, img := range images {
		if errs[i] != nil || img != images[0] || !strings.HasPrefix(img.Root, own.dir) {
			t.Errorf("builder %d: image %v, error %v", i, img, errs[i])
		}
	}
	if n := strings.Count(log.String(), "building the image"); n != 1 {
		t.Errorf("the image was built %d times:\n%s", n, log)
	}
	for _, name := range list(t, own) {
		if strings.HasPrefix(name, "tmp-") {
			t.Errorf("%s is left in the cache", name)
		}
	}
	for _, file := range []string{images[0].Kernel, images[0].Root} {
		if st, err := os.Stat(file); err != nil || st.Size() < 1<<20 {
			t.Errorf("%s: %v, %v", file, st, err)
		}
	}
}

// TestImageName: any change of what goes in gives another image.
func TestImageName(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, f := range []string{a, b} {
		if err := os.WriteFile(f, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	next := func(deb string, files ...string) {
		t.Helper()
		name, err := imageName(deb, files)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(names, name) {
			t.Errorf("%s %v has the name of another image", deb, files)
		}
		names = append(names, name)
	}
	next("k1.deb", a, b)
	next("k2.deb", a, b)
	next("k1.deb", a)
	if err := os.WriteFile(b, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	next("k1.deb", a, b)
	if err := os.WriteFile(b, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if again, err := imageName("k1.deb", []string{a, b}); err != nil || again != names[0] {
		t.Errorf("the same input gives %s, then %s (%v)", names[0], again, err)
	}
}

// TestKernelWithoutApt: a host whose apt knows nothing any more uses the kernel
// that it has.
func TestKernelWithoutApt(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for _, name := range []string{"apt-cache", "apt-get"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho E: offline >&2\nexit 100\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := openCache()
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{cache: c, log: io.Discard}
	if _, err := b.debFile(t.Context()); err == nil || !strings.Contains(err.Error(), "offline") {
		t.Errorf("error %v with an empty cache, want apt's", err)
	}
	const kept = "linux-image-6.1.0-1-cloud-amd64_6.1.1-1_amd64.deb"
	if err := os.WriteFile(c.path(kept), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := b.debFile(t.Context()); got != kept || err != nil {
		t.Errorf("%q, %v; want the one that is there", got, err)
	}
	if got, err := b.obtain(t.Context(), "linux-image-6.1.0-2-cloud-amd64_6.1.2-1_amd64.deb"); got != kept || err != nil {
		t.Errorf("%q, %v; want the one that is there when a newer can't be had", got, err)
	}
}

// safeBuffer is a bytes.Buffer for many writers.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
