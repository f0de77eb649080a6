// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// engine is a Docker engine at its usual socket.
type engine struct {
	t   *testing.T
	pid map[string]string // of the containers that run has started
}

// startEngine starts containerd and dockerd, and returns when the engine answers
// and has the image "bb". They last as long as the machine; their logs are shown
// when the test fails.
func startEngine(t *testing.T) *engine {
	t.Helper()
	const dir = "/run/engine" // with mounts that outlive the test
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("the engine:\n%s", text)
		}
	})
	run := func(name string, args ...string) {
		t.Helper()
		out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = out, out
		// The root file system is the initial one: no pivot_root from it.
		cmd.Env = append(os.Environ(), "DOCKER_RAMDISK=1")
		if err := cmd.Start(); err != nil {
			t.Fatalf("start %s: %v", name, err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	sock := filepath.Join(dir, "c.sock")
	run("containerd", "--root", dir+"/cr", "--state", dir+"/cs", "--address", sock, "--log-level", "warn")
	run("dockerd", "--log-level=info", "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--storage-driver=vfs", "--data-root", dir+"/dd", "--exec-root", dir+"/de", "--containerd", sock)
	e := &engine{t, map[string]string{}}
	for end := time.Now().Add(2 * patience); ; { // each try is a process
		_, err := e.try("version")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the engine does not answer: %v", err)
		}
	}
	e.image()
	return e
}

// image imports a root file system of busybox alone.
func (e *engine) image() {
	e.t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		e.t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	files := []*tar.Header{{Name: "bin/busybox", Mode: 0o755, Size: int64(len(bin)), Typeflag: tar.TypeReg}}
	for _, name := range []string{"sh", "ip", "ping", "cat"} {
		files = append(files, &tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink})
	}
	for _, h := range files {
		if err := w.WriteHeader(h); err != nil {
			e.t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(bin); err != nil {
				e.t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command("docker", "import", "--change", "CMD [\"/bin/sh\"]", "-", "bb")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("docker import: %v: %s", err, out)
	}
}

// docker runs the engine's client with arguments that have no spaces in them,
// and returns what it printed.
func (e *engine) docker(args string) string {
	e.t.Helper()
	out, err := e.try(strings.Fields(args)...)
	if err != nil {
		e.t.Fatalf("docker %s: %v: %s", args, err, out)
	}
	return out
}

func (e *engine) try(args ...string) (string, error) {
	out, err := exec.Command("docker", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run starts containers as the article does, name → network, all at once.
func (e *engine) run(networks map[string]string) {
	e.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, network := range networks {
		all.Go(func() {
			// Filters of system calls cost an emulated processor seconds.
			out, err := e.try("run", "-dit", "--security-opt", "seccomp=unconfined", "--name", name, "--network", network, "bb")
			if err != nil {
				e.t.Errorf("docker run %s: %v: %s", name, err, out)
				return
			}
			pid, err := e.try("inspect", "-f", "{{.State.Pid}}", name)
			if err != nil {
				e.t.Errorf("docker inspect %s: %v: %s", name, err, pid)
				return
			}
			mu.Lock()
			e.pid[name] = pid
			mu.Unlock()
		})
	}
	all.Wait()
	if e.t.Failed() {
		e.t.FailNow()
	}
}

// in runs a program of the host in a container's network namespace.
func (e *engine) in(container, program, args string) (string, error) {
	e.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		e.t.Fatal(err)
	}
	args = "nsenter -t " + e.pid[container] + " -n " + path + " " + args
	out, err := exec.Command("busybox", strings.Fields(args)...).CombinedOutput()
	return string(out), err
}

// pings reports whether a container reaches an address.
func (e *engine) pings(container, addr string) bool {
	e.t.Helper()
	_, err := e.in(container, "busybox", "ping -c 1 -W 5 "+addr)
	return err == nil
}

// of is a container's address and MAC, as the engine says.
func (e *engine) of(container, network string) (addr, mac string) {
	e.t.Helper()
	path := ".NetworkSettings.Networks." + network
	f := strings.Fields(e.docker("inspect -f {{" + path + ".IPAddress}}/{{" + path + ".IPPrefixLen}}_{{" + path + ".MacAddress}} " + container))
	if len(f) != 1 {
		e.t.Fatalf("%s has no address on %s", container, network)
	}
	addr, mac, _ = strings.Cut(f[0], "_")
	return addr, mac
}
