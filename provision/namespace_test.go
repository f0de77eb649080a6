// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// init has a process that a test starts go into a namespace with its main thread
// alone, until its standard input ends.
func init() {
	path := os.Getenv("PROVISION_TEST_VISIT")
	if path == "" {
		return
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
	}
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A namespace that a process only visits is not found by its entry: it leads
// elsewhere as soon as the visit is over.
func TestFindNamespaceVisited(t *testing.T) {
	name, remove := newNamed(t)
	ns, err := Open("/run/netns/" + name)
	must(t, err)
	defer ns.Close()
	id := ns.ID()
	visitor := exec.Command("/proc/self/exe")
	visitor.Env = append(os.Environ(), "PROVISION_TEST_VISIT="+id.Path)
	in, err := visitor.StdinPipe()
	must(t, err)
	out, err := visitor.StdoutPipe()
	must(t, err)
	must(t, visitor.Start())
	defer func() { in.Close(); _ = visitor.Wait() }()
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "<nil>\n" {
		t.Fatalf("the visitor says %q: %v", said, err)
	}
	remove()
	own := fmt.Sprintf("/proc/%d/ns/net", visitor.Process.Pid)
	if n, ok := statNamespace(own); !ok || n.Dev != id.Dev || n.Ino != id.Ino {
		t.Fatalf("%s leads to %+v, want %+v", own, n, id)
	}
	if n, err := FindNamespace(id.Dev, id.Ino); !errors.Is(err, ErrGone) {
		t.Errorf("found at %s: %v", n.Path, err)
	}
	all, err := AllNamespaces()
	must(t, err)
	for _, n := range all {
		if n.Dev == id.Dev && n.Ino == id.Ino {
			t.Errorf("listed at %s", n.Path)
		}
	}
	// A process that is in it, with all its threads, leads there.
	sleep := exec.Command("nsenter", "--net="+own, "sleep", "1000")
	must(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	var found Namespace
	for err = ErrGone; errors.Is(err, ErrGone); {
		found, err = FindNamespace(id.Dev, id.Ino)
	}
	if want := fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid); err != nil || found.Path != want {
		t.Errorf("found at %s: %v, want %s", found.Path, err, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(plain, nil, 0o600))
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	for _, tt := range []struct {
		name, path string
		want       error
		says       string
	}{
		{"missing", "/run/netns/" + uniqueName(), ErrGone, "no network namespace at"},
		{"missing process", "/proc/999999999/ns/net", ErrGone, "no network namespace at"},
		{"below a file", plain + "/x", ErrGone, "no network namespace at"},
		{"plain file", plain, ErrInvalid, "is not a namespace"},
		{"fifo", fifo, ErrInvalid, "is not a namespace"},
		{"directory", t.TempDir(), ErrInvalid, "is not a namespace"},
		{"other namespace", "/proc/self/ns/uts", ErrInvalid, "not a network namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns, err := Open(tt.path)
			if err == nil {
				ns.Close()
			}
			if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.says) {
				t.Errorf("Open(%s): %v", tt.path, err)
			}
		})
	}
}

func TestNamespaceIdentity(t *testing.T) {
	name, remove := newNamed(t)
	ns, err := Open("/run/netns/" + name)
	must(t, err)
	defer ns.Close()
	id := ns.ID()
	if ns.IsHost() || !id.Alive() {
		t.Errorf("IsHost %v, Alive %v", ns.IsHost(), id.Alive())
	}
	again, err := id.Open()
	must(t, err)
	if diff := cmp.Diff(id, again.ID()); diff != "" {
		t.Error(diff)
	}
	again.Close()
	again.Close()
	if again.FD() != -1 {
		t.Error("FD after Close:", again.FD())
	}

	// The same path, another namespace: ns is still open, so its inode number
	// can't have been given out again.
	remove()
	if id.Alive() {
		t.Error("alive without its path")
	}
	if _, err := id.Open(); !errors.Is(err, ErrGone) {
		t.Error("opened without its path:", err)
	}
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	if id.Alive() {
		t.Error("another namespace passes for it")
	}
	if _, err := id.Open(); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "another one") {
		t.Error("another namespace was opened for it:", err)
	}
}

func TestIsHost(t *testing.T) {
	ns, err := Open("/proc/thread-self/ns/net")
	must(t, err)
	defer ns.Close()
	if !ns.IsHost() {
		t.Error("the process's own namespace isn't the host's")
	}
}

func TestDo(t *testing.T) {
	ns := newTestNS(t)
	inode := func() (ino uint64) {
		var st unix.Stat_t
		must(t, unix.Stat("/proc/thread-self/ns/net", &st))
		return st.Ino
	}
	before := inode()
	var inside uint64
	wantErr := errors.New("mine")
	if err := ns.Do(func() error { inside = inode(); return wantErr }); err != wantErr {
		t.Error("Do returned", err)
	}
	if inside != ns.ID().Ino {
		t.Error("not inside the namespace")
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error from a function that ended its goroutine")
	}
	for range 100 {
		done := make(chan uint64)
		go func() { done <- inode() }()
		if got := <-done; got != before {
			t.Fatal("a thread stayed in another namespace")
		}
	}
	ns.Close()
	if err := ns.Do(func() error { return nil }); err == nil {
		t.Error("entered a namespace that is closed")
	}
}

// A thread that can't come back must end. Its way back is replaced by a
// descriptor that leads nowhere.
func TestDoRetiresThread(t *testing.T) {
	ns := newTestNS(t)
	broken := newNS(Namespace{}, -1)
	retired := map[int]bool{}
	for range 20 {
		done, tid := make(chan error, 1), 0
		go ns.run(broken, func() error { tid = unix.Gettid(); return nil }, done)
		must(t, <-done)
		if retired[tid] {
			t.Fatal("a retired thread was used again")
		}
		retired[tid] = true
		if tid == os.Getpid() {
			continue // the runtime parks the main thread for good instead
		}
		eventually(t, "the thread ends", func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return os.IsNotExist(err)
		})
	}
}

func TestFindNamespace(t *testing.T) {
	name, remove := newNamed(t)
	cmd := exec.Command("ip", "netns", "exec", name, "sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var id Namespace
	eventually(t, "the process is in the namespace", func() bool {
		named, ok := statNamespace("/run/netns/" + name)
		inside, ok2 := statNamespace(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
		id = named
		return ok && ok2 && named.Ino == inside.Ino
	})

	got, err := FindNamespace(id.Dev, id.Ino)
	must(t, err)
	if diff := cmp.Diff(id, got); diff != "" {
		t.Error(diff)
	}
	all, err := AllNamespaces()
	must(t, err)
	times := 0
	for _, n := range all {
		if n.Ino == id.Ino && n.Dev == id.Dev {
			times++
		}
		if own, _ := home(); n.Ino == own.id.Ino {
			t.Error("the process's own namespace is listed")
		}
	}
	if times != 1 {
		t.Errorf("listed %d times", times)
	}

	remove() // the process keeps it alive
	want := Namespace{Path: fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), Dev: id.Dev, Ino: id.Ino}
	got, err = FindNamespace(id.Dev, id.Ino)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if _, err := FindNamespace(id.Dev, id.Ino); !errors.Is(err, ErrGone) {
		t.Error("found without a path or a process:", err)
	}
}
