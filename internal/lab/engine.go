// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Image is the image that an Engine has: busybox, with links for a few of its
// programs.
const Image = "bb"

// Engine is a Docker engine on a host with a systemd, under the default paths.
type Engine struct {
	*Systemd
	// Socket is its API's, from outside.
	Socket string
}

// engineUnit has nothing of an engine's own unit but what the lab needs. Engines
// from 29 on serve old clients, as Compose, only when told to.
const engineUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=notify
Environment=PATH=SEARCH DOCKER_MIN_API_VERSION=1.24
ExecStart=DOCKERD --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs --log-level=warn ARGS
KillMode=process
TimeoutStartSec=60
`

// StartEngine is Start for a program of an engine: it finds the others.
func (n *NS) StartEngine(name string, args ...string) *Process {
	n.lab.tb.Helper()
	cmd := exec.Command(n.lab.Tool(name), args...)
	cmd.Env = append(os.Environ(), "PATH="+SearchPath())
	return n.StartCommand(cmd)
}

// Engine starts one with more arguments and waits until it answers.
func (s *Systemd) Engine(args ...string) *Engine {
	l := s.Host.lab
	l.tb.Helper()
	unit := strings.NewReplacer("SEARCH", SearchPath(), "DOCKERD", l.Tool("dockerd"), "ARGS", strings.Join(args, " ")).Replace(engineUnit)
	l.must(os.WriteFile(s.Path("/run/systemd/system/docker.service"), []byte(unit), 0o644), "write the engine's unit")
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "start", "docker.service")
	e := &Engine{Systemd: s, Socket: s.Path("/run/docker.sock")}
	tar := filepath.Join(l.dir, l.unique("image.tar"))
	image, err := ImageTar()
	l.must(err, "make an image")
	l.must(os.WriteFile(tar, image, 0o644), "write the image")
	e.Docker("import", tar, Image+":latest")
	return e
}

// Docker runs the engine's client and returns what it printed. A failure ends
// the test.
func (e *Engine) Docker(args ...string) string {
	l := e.Host.lab
	l.tb.Helper()
	out, err := e.TryDocker(args...)
	if err != nil {
		l.tb.Fatalf("lab: docker %s: %v: %s\n%s", strings.Join(args, " "), err, out, e.said())
	}
	return out
}

// TryDocker is Docker that returns the error.
func (e *Engine) TryDocker(args ...string) (string, error) {
	out, err := e.DockerCommand(args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// DockerCommand is the engine's client, to be run from anywhere.
func (e *Engine) DockerCommand(args ...string) *exec.Cmd {
	return exec.Command(DockerClient(), append([]string{"-H", "unix://" + e.Socket}, args...)...)
}

// DockerClient is the engine's own client: one of a later version refuses some
// options for an engine as old as Debian's.
func DockerClient() string {
	for _, dir := range []string{EngineDir(), "/usr/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, "docker")); dir != "" && err == nil {
			return path
		}
	}
	return "docker"
}

// Close removes the engine's containers and ends it, so that nothing of it is
// busy when the lab goes.
func (e *Engine) Close() {
	e.Host.lab.tb.Helper()
	if out, err := e.TryDocker("ps", "-aq"); err == nil && out != "" {
		_, _ = e.TryDocker(append([]string{"rm", "-f"}, strings.Fields(out)...)...)
	}
	_, _ = e.Try("systemctl", "stop", "docker.service")
}

// ImageTar is the root file system of Image, for docker import.
func ImageTar() ([]byte, error) {
	path, err := tool("busybox")
	if err != nil {
		return nil, err
	}
	bin, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(bin)), Typeflag: tar.TypeReg, ModTime: time.Now()}); err != nil {
		return nil, err
	}
	if _, err := w.Write(bin); err != nil {
		return nil, err
	}
	for _, name := range []string{"sh", "cat", "ip", "nc", "ping", "sleep"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
