// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
)

// Image is a machine to boot: a kernel and the root file system it starts with.
// Its files belong to the cache and stay as they are.
type Image struct {
	// Kernel is the kernel's image.
	Kernel string
	// Root is a cpio archive with busybox, ip, bridge, dnsmasq, the modules
	// and the init program.
	Root string
}

// BuildImage gives the image for the kernel that apt offers and the programs of
// this machine. It lies in the user's cache directory and is built when it is
// not there or when anything that goes into it has changed; log hears what takes
// long. Any number of processes may call it at once: one builds.
func BuildImage(ctx context.Context, log io.Writer) (Image, error) {
	if runtime.GOARCH != "amd64" {
		return Image{}, fmt.Errorf("the VM is an amd64 machine, this is %s", runtime.GOARCH)
	}
	c, err := openCache()
	if err != nil {
		return Image{}, err
	}
	b := &builder{cache: c, log: log}
	img, err := b.image(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("build the VM's image: %w", err)
	}
	return img, nil
}

// recipe is the source of all that shapes an image, the guest's included.
//
//go:embed image.go rootfs.go modules.go cpio.go init/*.go
var recipe embed.FS

// guestPrograms of this machine are in every image.
var guestPrograms = []string{"busybox", "ip", "bridge", "dnsmasq"}

type builder struct {
	cache cache
	log   io.Writer
}

func (b *builder) say(format string, args ...any) {
	if b.log != nil {
		fmt.Fprintf(b.log, "vm: "+format+"\n", args...)
	}
}

func (b *builder) image(ctx context.Context) (Image, error) {
	programs, err := find(append([]string{emulator, "depmod", "dpkg-deb", "apt-get"}, guestPrograms...)...)
	if err != nil {
		return Image{}, err
	}
	files, err := guestFiles(ctx, programs)
	if err != nil {
		return Image{}, err
	}
	deb, err := b.debFile(ctx)
	if err != nil {
		return Image{}, err
	}
	name, err := imageName(deb, files)
	if err != nil {
		return Image{}, err
	}
	if b.cache.have(name) {
		return b.at(name), nil
	}
	unlock, err := b.cache.lock(ctx, b.say)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	b.cache.tidy()
	if deb, err = b.obtain(ctx, deb); err != nil {
		return Image{}, err
	}
	if name, err = imageName(deb, files); err != nil {
		return Image{}, err
	}
	if b.cache.have(name) {
		return b.at(name), nil
	}
	b.say("building the image from %s", deb)
	err = b.cache.make(name, func(dir string) error {
		return b.build(ctx, dir, b.cache.path(deb), files)
	})
	return b.at(name), err
}

func (b *builder) at(name string) Image {
	return Image{
		Kernel: b.cache.path(name + "/vmlinuz"),
		Root:   b.cache.path(name + "/root.cpio"),
	}
}

// guestFiles are the programs of the image with their libraries, once each.
func guestFiles(ctx context.Context, programs map[string]string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, name := range guestPrograms {
		libs, err := libraries(ctx, programs[name])
		if err != nil {
			return nil, err
		}
		for _, f := range append(libs, programs[name]) {
			if !seen[f] {
				seen[f] = true
				files = append(files, f)
			}
		}
	}
	sort.Strings(files)
	return files, nil
}

// imageName is a name for an image by all that goes into it.
func imageName(deb string, files []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), deb, modules)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("read %s: %w", file, err)
		}
		fmt.Fprintf(h, "%s %x\n", file, sum.Sum(nil))
	}
	err := fs.WalkDir(recipe, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := recipe.ReadFile(name)
		fmt.Fprintf(h, "%s %x\n", name, sha256.Sum256(data))
		return err
	})
	return "image-" + hex.EncodeToString(h.Sum(nil)[:12]), err
}

// build fills dir with vmlinuz and root.cpio.
func (b *builder) build(ctx context.Context, dir, deb string, files []string) error {
	work, err := os.MkdirTemp(b.cache.dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tree, err := unpack(ctx, deb, mkdir(work, "kernel"))
	if err != nil {
		return err
	}
	chosen := mkdir(work, "chosen")
	if err := tree.pick(ctx, chosen, modules); err != nil {
		return err
	}
	if err := os.Rename(tree.vmlinuz, filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	initProgram := filepath.Join(work, "init")
	if err := buildInit(ctx, initProgram); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "root.cpio"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeRoot(ctx, f, initProgram, chosen, files); err != nil {
		return fmt.Errorf("write the root file system: %w", err)
	}
	return f.Close()
}

// buildInit compiles the guest's process 1 from this module.
func buildInit(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", to,
		"mvdhcp/internal/lab/vm/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compile the guest's init (from within this module): %w: %s",
			err, strings.TrimSpace(said.String()))
	}
	return nil
}

func mkdir(dir, name string) string {
	p := filepath.Join(dir, name)
	_ = os.Mkdir(p, 0o755) // the first write into it tells
	return p
}
