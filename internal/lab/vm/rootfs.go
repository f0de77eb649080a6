// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// skeleton is the part of the root file system that is the same everywhere.
// The machine id is that of every guest, so that a name, and with it a MAC, is
// the same after a reboot.
var skeleton = map[string]string{
	"/etc/passwd":     "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"/etc/group":      "root:x:0:\nnogroup:x:65534:\n",
	"/etc/hosts":      "127.0.0.1 localhost\n",
	"/etc/hostname":   "vm\n",
	"/etc/machine-id": "6d766468637000000000000000000001\n",
}

// writeRoot writes the image's root file system: the init program, files of
// this machine, busybox's applets, modules. It has the merged /usr of Debian.
func writeRoot(ctx context.Context, w io.Writer, initProgram, modulesDir string, files []string) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	a := newArchive(buf)
	a.copy("/init", initProgram)
	for _, d := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/disk",
		"/etc", "/var/lib", "/var/log", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"} {
		a.dir(d)
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		a.symlink("/"+l, "usr/"+l)
	}
	a.symlink("/var/run", "/run")
	for _, name := range sortedKeys(skeleton) {
		a.file(name, 0o644, skeleton[name])
	}
	var busybox string
	for _, f := range files {
		if filepath.Base(f) == "busybox" {
			busybox = f
		}
		a.copy(merged(f), f)
	}
	if err := applets(ctx, a, busybox, files); err != nil {
		return err
	}
	err := filepath.WalkDir(filepath.Join(modulesDir, "usr"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			a.copy(strings.TrimPrefix(p, modulesDir), p)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := a.close(); err != nil {
		return err
	}
	return buf.Flush()
}

// applets links busybox's names to it, but for those that are there for real.
// modprobe is where the kernel looks for it (CONFIG_MODPROBE_PATH).
func applets(ctx context.Context, a *archive, busybox string, files []string) error {
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	for _, name := range strings.Fields(string(out)) {
		real := slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) == name })
		switch {
		case real:
		case name == "modprobe":
			a.symlink("/usr/sbin/modprobe", merged(busybox))
		default:
			a.symlink("/usr/bin/"+name, merged(busybox))
		}
	}
	return nil
}

// writeOverlay writes what one run adds to an image: its files (guest's path →
// this machine's), programs with their libraries, and init's orders.
func writeOverlay(ctx context.Context, w io.Writer, files map[string]string, programs []string, orders []byte) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	a := newArchive(buf)
	// In the image already, as links or as directories.
	for _, d := range []string{"/usr", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64"} {
		a.dirs[d] = true
	}
	paths, err := find(programs...)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(paths) {
		libs, err := libraries(ctx, paths[name])
		if err != nil {
			return err
		}
		for _, f := range append(libs, paths[name]) {
			a.copy(merged(f), f)
		}
	}
	for _, to := range sortedKeys(files) {
		if !strings.HasPrefix(to, "/") {
			return fmt.Errorf("the guest's path %q of %s does not begin with /", to, files[to])
		}
		a.copy(merged(to), files[to])
	}
	a.file("/etc/vm.json", os.FileMode(0o644), string(orders))
	if err := a.close(); err != nil {
		return err
	}
	return buf.Flush()
}

// merged is where a path lies when /bin, /sbin and /lib are links into /usr.
func merged(p string) string {
	for _, l := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(p, l) {
			return "/usr" + p
		}
	}
	return p
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
