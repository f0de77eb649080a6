// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestMain turns the test binary into a contained process when asked to: one
// with its own root and /proc, that ends with its standard input.
func TestMain(m *testing.M) {
	if root := os.Getenv("PROVISION_TEST_ROOT"); root != "" {
		contained(root)
		return
	}
	os.Exit(m.Run())
}

func contained(root string) {
	err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, "")
	if err == nil {
		err = unix.Chroot(root)
	}
	if err == nil {
		err = os.Chdir("/")
	}
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// container starts a contained process and returns its root, where etc and proc
// are made, and its PID.
func container(t *testing.T) (root string, pid int) {
	t.Helper()
	root = t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "proc"), 0o755))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROVISION_TEST_ROOT="+root)
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil>\n" {
		t.Fatal("contained process:", line, err)
	}
	return root, cmd.Process.Pid
}

// testResolvHost has files of its own, but for the root directory.
func testResolvHost(t *testing.T) resolvHost {
	t.Helper()
	dir := t.TempDir()
	h := resolvHost{netns: dir + "/netns", root: "/", etc: dir, resolv: dir + "/resolv.conf"}
	must(t, os.WriteFile(h.resolv, []byte("host\n"), 0o644))
	t.Cleanup(func() {
		if b, err := os.ReadFile(h.resolv); err != nil || string(b) != "host\n" {
			t.Errorf("the host's resolv.conf is %q, %v", b, err)
		}
	})
	return h
}

func (h resolvHost) expect(t *testing.T, f ResolvFile, content string, existed bool) {
	t.Helper()
	got, ok, err := h.read(f)
	if err != nil || string(got) != content || ok != existed {
		t.Errorf("read: %q, %v, %v", got, ok, err)
	}
}

func TestResolvNamed(t *testing.T) {
	h := testResolvHost(t)
	f, err := NamedResolv("blue")
	must(t, err)
	h.expect(t, f, "", false)
	must(t, h.remove(f))
	must(t, h.write(f, []byte("first, and longer\n")))
	must(t, h.write(f, []byte("second\n")))
	h.expect(t, f, "second\n", true)
	if st, err := os.Stat(h.netns + "/blue/resolv.conf"); err != nil || st.Mode().Perm() != 0o644 {
		t.Error(st, err)
	}
	must(t, h.remove(f))
	if _, err := os.Stat(h.netns); !os.IsNotExist(err) {
		t.Error("directories are left:", err)
	}
	// What else is in the directories stays.
	must(t, h.write(f, nil))
	must(t, os.WriteFile(h.netns+"/blue/hosts", nil, 0o644))
	must(t, h.remove(f))
	if _, err := os.Stat(h.netns + "/blue/hosts"); err != nil {
		t.Error(err)
	}
}

func TestResolvNamedRefuses(t *testing.T) {
	h := testResolvHost(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x", "a\x00", strings.Repeat("x", 256)} {
		if _, err := NamedResolv(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	f, path := ResolvFile{Netns: "red"}, h.netns+"/red/resolv.conf"
	must(t, os.MkdirAll(h.netns+"/red", 0o755))
	for what, place := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(h.resolv, path) },
		"dangling link": func() error { return os.Symlink("/nonexistent", path) },
		"hard link":     func() error { return os.Link(h.resolv, path) },
		"fifo":          func() error { return unix.Mkfifo(path, 0o644) },
		"directory":     func() error { return os.Mkdir(path, 0o755) },
	} {
		must(t, place())
		if err := h.write(f, []byte("evil\n")); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: write: %v", what, err)
		}
		if err := h.remove(f); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: remove: %v", what, err)
		}
		if _, _, err := h.read(f); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: read: %v", what, err)
		}
		must(t, os.Remove(path))
	}
	must(t, os.WriteFile(path, make([]byte, maxResolv+1), 0o644))
	if _, _, err := h.read(f); !errors.Is(err, ErrInvalid) {
		t.Error("large file:", err)
	}
	if err := h.write(f, make([]byte, maxResolv+1)); !errors.Is(err, ErrInvalid) {
		t.Error("large content:", err)
	}
}

func TestResolvProcess(t *testing.T) {
	h := testResolvHost(t)
	root, pid := container(t)
	f, err := ProcessResolv(pid)
	must(t, err)
	path := filepath.Join(root, "etc/resolv.conf")
	h.expect(t, f, "", false)
	must(t, h.write(f, []byte("made\n")))
	h.expect(t, f, "made\n", true)
	must(t, h.remove(f))
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("left:", err)
	}

	// In place: the inode stays, as a bind mount needs.
	must(t, os.WriteFile(path, []byte("a file with much text\n"), 0o600))
	before, err := os.Stat(path)
	must(t, err)
	must(t, h.write(f, []byte("short\n")))
	after, err := os.Stat(path)
	must(t, err)
	if b, _ := os.ReadFile(path); string(b) != "short\n" || !os.SameFile(before, after) || after.Mode().Perm() != 0o600 {
		t.Errorf("%q, same file %v, mode %v", b, os.SameFile(before, after), after.Mode())
	}

	// A link inside the container means a file inside the container.
	must(t, os.Remove(path))
	must(t, os.MkdirAll(root+"/run", 0o755))
	must(t, os.WriteFile(root+"/run/stub.conf", []byte("stub\n"), 0o644))
	must(t, os.Symlink("/run/stub.conf", path))
	must(t, h.write(f, []byte("through\n")))
	if b, _ := os.ReadFile(root + "/run/stub.conf"); string(b) != "through\n" {
		t.Errorf("stub is %q", b)
	}
}

// Whatever a container makes of its files, none of the host's is touched.
func TestResolvAttack(t *testing.T) {
	h := testResolvHost(t)
	root, pid := container(t)
	f, err := ProcessResolv(pid)
	must(t, err)
	victim := filepath.Join(h.etc, "victim")
	must(t, os.WriteFile(victim, []byte("victim\n"), 0o644))
	path, etc := filepath.Join(root, "etc/resolv.conf"), filepath.Join(root, "etc")
	up := strings.Repeat("../", 30)
	for what, place := range map[string]func() error{
		"absolute link":        func() error { return os.Symlink(victim, path) },
		"link upward":          func() error { return os.Symlink(up+victim, path) },
		"link upward via proc": func() error { return os.Symlink("/proc/self/cwd/"+up+victim, path) },
		// By the host's numbers of processes the container has no business with.
		"magic link":      func() error { return os.Symlink(fmt.Sprintf("/proc/%d/root%s", os.Getpid(), victim), path) },
		"magic link self": func() error { return os.Symlink("/proc/self/root"+victim, path) },
		"magic fd":        func() error { return os.Symlink("/proc/self/fd/0", path) },
		"directory link":  func() error { must(t, os.Remove(etc)); return os.Symlink(h.etc, etc) },
		"fifo":            func() error { return unix.Mkfifo(path, 0o644) },
		"device":          func() error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		"hard link":       func() error { return os.Link(h.resolv, path) },
		"loop":            func() error { return os.Symlink("resolv.conf", path) },
	} {
		must(t, os.MkdirAll(etc, 0o755))
		must(t, place())
		for name, err := range map[string]error{"write": h.write(f, []byte("evil\n")), "remove": h.remove(f)} {
			if err == nil && name == "write" {
				t.Errorf("%s: %s went through", what, name)
			}
		}
		if b, err := os.ReadFile(victim); err != nil || string(b) != "victim\n" {
			t.Fatalf("%s: the victim is %q, %v", what, b, err)
		}
		if what == "directory link" {
			path = etc // not through the link
		}
		must(t, os.RemoveAll(path))
		path = filepath.Join(root, "etc/resolv.conf")
	}
}

func TestResolvProcessRefuses(t *testing.T) {
	self, err := ProcessResolv(os.Getpid())
	must(t, err)
	if _, _, err := ReadResolv(self); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "shares the host's files") {
		t.Error("a process with the host's files:", err)
	}
	h := testResolvHost(t)
	root, pid := container(t)
	must(t, os.WriteFile(root+"/etc/resolv.conf", []byte("host\n"), 0o644))
	h.root = root // as if the process had the host's files
	f := ResolvFile{PID: pid}
	for name, err := range map[string]error{"write": h.write(f, []byte("evil\n")), "remove": h.remove(f)} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s in the host's files: %v", name, err)
		}
	}
	if b, err := os.ReadFile(root + "/etc/resolv.conf"); err != nil || string(b) != "host\n" {
		t.Errorf("it is %q, %v", b, err)
	}
	h.root, h.etc = "/", root+"/etc" // as if it had the host's /etc
	must(t, os.Remove(root+"/etc/resolv.conf"))
	if err := h.write(f, []byte("evil\n")); !errors.Is(err, ErrInvalid) {
		t.Error("write in the host's /etc:", err)
	}
	if _, _, err := ReadResolv(ResolvFile{PID: pid, Start: 1}); !errors.Is(err, ErrGone) {
		t.Error("another process:", err)
	}
	if _, err := ProcessResolv(999999999); !errors.Is(err, ErrGone) {
		t.Error("no process:", err)
	}
	if _, _, err := ReadResolv(ResolvFile{PID: 999999999}); !errors.Is(err, ErrGone) {
		t.Error("no process:", err)
	}
	for _, f := range []ResolvFile{{}, {PID: -1}, {PID: 1, Netns: "x"}} {
		if _, _, err := ReadResolv(f); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestRenderResolv(t *testing.T) {
	previous := []byte("# by hand\nnameserver 192.0.2.1\nsearch old\noptions ndots:5\r\noptionsx\noptions\ttimeout:1")
	header := "# Written by mvdhcp from a DHCP lease; the previous file comes back on detach.\n"
	for _, tt := range []struct {
		name     string
		dns      string
		domain   string
		search   []string
		previous []byte
		want     string
	}{
		{"all", "10.9.0.1 10.9.0.2", "lan.example", []string{"lan.example.", "example"}, previous,
			"nameserver 10.9.0.1\nnameserver 10.9.0.2\nsearch lan.example example\noptions ndots:5\noptions\ttimeout:1\n"},
		{"none", "", "", nil, previous, "nameserver 192.0.2.1\noptions ndots:5\noptions\ttimeout:1\n"},
		{"four servers", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", "", nil, nil,
			"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n# Resolvers use 3 servers; more were given: 10.0.0.4\n"},
		{"hostile domains", "10.0.0.1", "a\nnameserver 6.6.6.6", []string{"b c", "d#", "", ".", "..", "x..y", "ok", strings.Repeat("x", 254), "OK"}, nil,
			"nameserver 10.0.0.1\nsearch ok\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := tt
			got := RenderResolv(addrs(h.dns), h.domain, h.search, h.previous)
			if diff := cmp.Diff(header+h.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
	many := make([]string, 10000)
	for i := range many {
		many[i] = fmt.Sprintf("d%d.example", i)
	}
	if got := RenderResolv(nil, "", many, bytes.Repeat([]byte("options x\n"), 10000)); len(got) > maxResolv {
		t.Errorf("%d bytes", len(got))
	}
}
