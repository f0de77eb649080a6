// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packageOf names the Debian package of a program, where it isn't the program's.
var packageOf = map[string]string{
	emulator:    "qemu-system-x86",
	"depmod":    "kmod",
	"busybox":   "busybox-static",
	"dnsmasq":   "dnsmasq-base",
	"ip":        "iproute2",
	"bridge":    "iproute2",
	"tc":        "iproute2",
	"mkfs.ext4": "e2fsprogs",
	"dockerd":   "docker.io",
	"docker":    "docker.io",

	"containerd-shim-runc-v2": "containerd",
}

// find gives the paths of programs, also of those that only root has in PATH.
// An error names all that are missing and how to get them.
func find(names ...string) (map[string]string, error) {
	paths := map[string]string{}
	var missing, packages []string
	for _, name := range names {
		if p := lookPath(name); p != "" {
			paths[name] = p
			continue
		}
		missing = append(missing, name)
		pkg := name
		if p := packageOf[name]; p != "" {
			pkg = p
		}
		packages = append(packages, pkg)
	}
	if missing != nil {
		return nil, fmt.Errorf("the VM needs %s: apt-get install -y --no-install-recommends %s",
			strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return paths, nil
}

func lookPath(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		if abs, err := filepath.Abs(p); err == nil {
			return abs
		}
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}

// libraries lists the files a program loads at its start: the dynamic linker
// and the shared libraries. A static program has none.
func libraries(ctx context.Context, program string) ([]string, error) {
	dynamic, err := isDynamic(program)
	if err != nil || !dynamic {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("list the libraries of %s: ldd: %w", program, err)
	}
	var files []string
	for line := range strings.Lines(string(out)) {
		// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or
		// "/lib64/ld-linux-x86-64.so.2 (0x…)" or "linux-vdso.so.1 (0x…)"
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s lacks a library: %s", program, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	return files, nil
}

// isDynamic says whether a file is a program that asks for a dynamic linker.
// Scripts and data aren't.
func isDynamic(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return false, nil
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}
