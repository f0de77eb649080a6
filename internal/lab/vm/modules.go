// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modules are those in the image, beside what they depend on. Virtio is loaded
// at boot, the rest when the kernel asks for it, as on any host.
var modules = []string{
	"virtio_pci", "virtio_console", "virtio_blk",
	"8021q", "macvlan", "ipvlan", "veth", "bridge", "dummy", "bonding", "sch_netem",
	"virtio_net", "sch_ingress", "cls_matchall", "act_vlan",
}

// kernelTree is an unpacked kernel package: its image and its modules.
type kernelTree struct {
	root    string // holds lib/modules/<release>
	vmlinuz string
	release string // as uname -r
}

// unpack takes what is needed of a kernel package into an empty directory.
func unpack(ctx context.Context, deb, dir string) (kernelTree, error) {
	// depmod looks below lib or usr/lib, as Debian's release has it.
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib/modules"), 0o755); err != nil {
		return kernelTree{}, err
	}
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
		return kernelTree{}, err
	}
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return kernelTree{}, err
	}
	if err := cmd.Start(); err != nil {
		return kernelTree{}, err
	}
	t := kernelTree{root: dir}
	err = t.take(tar.NewReader(out))
	_, _ = io.Copy(io.Discard, out) // lets dpkg-deb end by itself
	if e := cmd.Wait(); e != nil {
		err = fmt.Errorf("dpkg-deb: %w: %s", e, lastLines(said.String(), 3))
	}
	if err == nil && (t.vmlinuz == "" || t.release == "") {
		err = errors.New("no vmlinuz or no modules in it")
	}
	if err != nil {
		return kernelTree{}, fmt.Errorf("unpack %s: %w", deb, err)
	}
	return t, nil
}

func (t *kernelTree) take(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), "usr/")
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
			continue
		}
		to := filepath.Join(t.root, name)
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			t.vmlinuz = to
		case strings.HasPrefix(name, "lib/modules/"):
			t.release, _, _ = strings.Cut(strings.TrimPrefix(name, "lib/modules/"), "/")
		default:
			continue
		}
		if err := writeFile(to, r); err != nil {
			return err
		}
	}
}

// pick copies modules, and what they depend on, into a tree of their own that
// has an index, and unpacks those that are compressed.
func (t kernelTree) pick(ctx context.Context, dir string, names []string) error {
	if err := command(ctx, "", "depmod", "-b", t.root, t.release); err != nil {
		return fmt.Errorf("index the kernel's modules: %w", err)
	}
	from := filepath.Join(t.root, "lib/modules", t.release)
	index, err := os.ReadFile(filepath.Join(from, "modules.dep"))
	if err != nil {
		return err
	}
	files, err := closure(string(index), names)
	if err != nil {
		return fmt.Errorf("kernel %s: %w", t.release, err)
	}
	to := filepath.Join(dir, "usr/lib/modules", t.release)
	for _, f := range append(files, "modules.order", "modules.builtin") {
		r, err := expand(ctx, filepath.Join(from, f))
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(f, "modules.") {
			continue
		}
		if err != nil {
			return err
		}
		name := f
		for _, ext := range compressions {
			name = strings.TrimSuffix(name, ext.suffix)
		}
		err = writeFile(filepath.Join(to, name), r)
		if e := r.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("copy module %s: %w", f, err)
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
		return err
	}
	if err := command(ctx, "", "depmod", "-b", dir, t.release); err != nil {
		return fmt.Errorf("index the chosen modules: %w", err)
	}
	return nil
}

// closure finds modules and all they need in a modules.dep, whose lines are
// "kernel/a.ko: kernel/b.ko kernel/c.ko" with every dependency, near and far.
func closure(index string, names []string) ([]string, error) {
	lines := map[string]string{}
	for line := range strings.Lines(index) {
		if file, _, ok := strings.Cut(line, ":"); ok {
			lines[moduleName(file)] = line
		}
	}
	var files []string
	seen := map[string]bool{}
	for _, n := range names {
		line, ok := lines[moduleName(n)]
		if !ok {
			return nil, fmt.Errorf("it has no module %s", n)
		}
		for _, f := range strings.Fields(line) {
			if f = strings.TrimSuffix(f, ":"); !seen[f] {
				seen[f] = true
				files = append(files, f)
			}
		}
	}
	return files, nil
}

// moduleName is what the kernel calls the module of a file: "-" is "_" to it.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// compressions are the ways Debian packs modules, and what unpacks them.
var compressions = []struct{ suffix, program string }{
	{".xz", "xz"}, {".zst", "zstd"}, {".gz", "gzip"},
}

// expand reads a file, unpacked when its name says that it is packed. Close
// reports whether all of it was read well.
func expand(ctx context.Context, file string) (io.ReadCloser, error) {
	for _, c := range compressions {
		if strings.HasSuffix(file, c.suffix) {
			cmd := exec.CommandContext(ctx, c.program, "-dc", file)
			out, err := cmd.StdoutPipe()
			if err != nil {
				return nil, err
			}
			if err := cmd.Start(); err != nil {
				return nil, fmt.Errorf("%s: %w (install %s)", file, err, c.program)
			}
			return process{out, cmd}, nil
		}
	}
	return os.Open(file)
}

type process struct {
	io.Reader
	cmd *exec.Cmd
}

func (p process) Close() error { return p.cmd.Wait() }

func writeFile(name string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
