// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// metapackage depends on Debian's newest kernel for virtual machines.
const metapackage = "linux-image-cloud-amd64"

// aptLists changes when apt-get update has brought new indexes.
const aptLists = "/var/lib/apt/lists"

// kernelPackage is one version of the kernel: what apt calls it.
type kernelPackage struct{ name, version string }

// file is the name apt-get download gives it (":" of an epoch escaped).
func (p kernelPackage) file() string {
	return fmt.Sprintf("%s_%s_amd64.deb", p.name, strings.ReplaceAll(p.version, ":", "%3a"))
}

// debFile says which package file is the kernel to use. It need not be in the
// cache yet.
func (b *builder) debFile(ctx context.Context) (string, error) {
	if file, ok := b.remembered(); ok {
		return file, nil
	}
	file, err := b.candidate(ctx)
	if err == nil {
		return file, nil
	}
	if kept := b.newestDeb(); kept != "" {
		b.say("%v; %s of the cache is used", err, kept)
		return kept, nil
	}
	return b.update(ctx)
}

// obtain brings the package file into the cache, or a newer one when the
// archive has it no more, and says which. The lock is held.
func (b *builder) obtain(ctx context.Context, file string) (string, error) {
	if b.cache.have(file) {
		return file, nil
	}
	kept := b.newestDeb()
	err := b.download(ctx, file)
	if err == nil || ctx.Err() != nil {
		return file, err
	}
	if kept != "" {
		b.say("%v; %s of the cache is used", err, kept)
		return kept, nil
	}
	b.say("%v", err)
	newer, e := b.update(ctx)
	if e != nil || newer == file {
		return "", err
	}
	return newer, b.download(ctx, newer)
}

// update has apt bring its indexes up to date.
func (b *builder) update(ctx context.Context) (string, error) {
	b.say("running apt-get update")
	if err := command(ctx, "", "apt-get", "update", "-q"); err != nil {
		return "", fmt.Errorf("update apt's indexes for %s: %w", metapackage, err)
	}
	return b.candidate(ctx)
}

// remembered is the answer of the last time, good until apt's indexes change.
func (b *builder) remembered() (string, bool) {
	memory, err := os.Stat(b.cache.path("candidate"))
	if err != nil {
		return "", false
	}
	lists, err := os.Stat(aptLists)
	if err != nil || !memory.ModTime().After(lists.ModTime()) {
		return "", false
	}
	file, err := os.ReadFile(b.cache.path("candidate"))
	return string(file), err == nil && strings.HasSuffix(string(file), ".deb")
}

func (b *builder) download(ctx context.Context, file string) error {
	name, rest, _ := strings.Cut(file, "_")
	version, _, _ := strings.Cut(rest, "_")
	b.say("downloading %s %s (about 30 MB)", name, version)
	tmp, err := os.MkdirTemp(b.cache.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	pin := name + "=" + strings.ReplaceAll(version, "%3a", ":")
	err = command(ctx, tmp, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", pin)
	if err != nil {
		return fmt.Errorf("download the kernel package %s: %w", pin, err)
	}
	return os.Rename(filepath.Join(tmp, file), b.cache.path(file))
}

func (b *builder) newestDeb() string {
	found, _ := filepath.Glob(b.cache.path("linux-image-*.deb"))
	var newest string
	var when int64
	for _, f := range found {
		if st, err := os.Stat(f); err == nil && st.ModTime().UnixNano() > when {
			newest, when = filepath.Base(f), st.ModTime().UnixNano()
		}
	}
	return newest
}

var dependsOn = regexp.MustCompile(`(?m)^Depends: (linux-image-[^ ]+) \(= ([^)]+)\)`)

// candidate asks apt which kernel it would install, and remembers the answer.
func (b *builder) candidate(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", metapackage).Output()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m := dependsOn.FindSubmatch(out)
	if err != nil || m == nil {
		return "", errors.New("apt has no package " + metapackage +
			": the VM needs the package index of Debian for amd64 (apt-get update)")
	}
	pkg := kernelPackage{name: string(m[1]), version: string(m[2])}
	// A memory that can't be written costs the next caller half a second.
	_ = os.WriteFile(b.cache.path("candidate"), []byte(pkg.file()), 0o644)
	return pkg.file(), nil
}

// command runs a program and puts the end of what it said into the error.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLines(string(out), 3))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
