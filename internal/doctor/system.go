// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
)

// leastFree is what the store should have left, in bytes.
const leastFree = 16 << 20

// stateDir looks whether leases can be stored and will be there after a boot.
func (x *examination) stateDir() {
	const check = "state"
	dir := x.StateDir
	at := dir
	for { // the nearest directory that is there
		fi, err := os.Stat(at)
		if err == nil && !fi.IsDir() {
			x.add(Finding{check, Problem, at + " is no directory", "leases are stored in " + dir, "give another with --state-dir"})
			return
		}
		if err == nil || at == filepath.Dir(at) {
			break
		}
		if !os.IsNotExist(err) {
			x.add(Finding{check, Problem, fmt.Sprintf("%s can't be read: %v", dir, err), "leases are stored there", "give another with --state-dir"})
			return
		}
		at = filepath.Dir(at)
	}
	if err := unix.Access(at, unix.W_OK); err != nil {
		x.add(Finding{check, Problem, fmt.Sprintf("%s is not writable: %v", at, err), "without its store a keeper does not start", "give another directory with --state-dir"})
		return
	}
	bytes, inMemory, err := free(at)
	switch {
	case err != nil:
		x.add(Finding{check, Warning, fmt.Sprintf("%s: %v", at, err), "", ""})
	case bytes < leastFree:
		x.add(Finding{check, Problem, fmt.Sprintf("%s has %d KiB left", at, bytes>>10), "a store that can't be written loses leases at a restart", "df -h " + at})
	case inMemory:
		x.add(Finding{check, Warning, dir + " is in memory", "after a boot the leases are not known: containers get new addresses, and the old ones wait at the server until they expire", "mvdhcp serve --state-dir DIR, on a disk"})
	default:
		x.ok(check, "%s: %s, %d MiB free", dir, storeText(dir), bytes>>20)
	}
}

func storeText(dir string) string {
	fi, err := os.Stat(filepath.Join(dir, "leases.db"))
	if err != nil {
		return "no store yet"
	}
	return fmt.Sprintf("store of %d KiB", fi.Size()>>10)
}

// keeperTimeout is how long a keeper may take to say how it is.
const keeperTimeout = 5 * time.Second

// keeper looks whether one runs, and of which version.
func (x *examination) keeper(ctx context.Context) {
	const check = "keeper"
	ctx, cancel := context.WithTimeoutCause(ctx, keeperTimeout, fmt.Errorf("it has not answered within %v", keeperTimeout))
	defer cancel()
	st, err := api.NewClient(x.Socket).Status(ctx)
	switch {
	case api.NotRunning(err):
		x.add(Finding{check, Note, "no keeper runs on " + x.Socket, "attach starts one; as a service it is there after a boot too", "systemctl enable --now mvdhcp"})
	case err != nil:
		x.add(Finding{check, Problem, err.Error(), "leases are kept by a keeper that answers", "systemctl restart mvdhcp"})
	case st.Version != x.Version:
		x.add(Finding{check, Warning, fmt.Sprintf("the keeper is version %s, this program %s", st.Version, x.Version), "an upgrade takes effect when the keeper is started again; addresses stay meanwhile", "systemctl restart mvdhcp"})
	default:
		leases := 0
		for _, n := range st.Leases {
			leases += n
		}
		x.ok(check, "version %s, pid %d, %s", st.Version, st.PID, plural(leases, "lease", "leases"))
	}
	if release := kernelRelease(); release != "" {
		x.ok("kernel", "Linux %s", release)
	}
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// engine looks whether the Docker engine answers. Without one, all but docker
// targets and the plugin work.
func (x *examination) engine(ctx context.Context) {
	const check = "docker"
	version, err := docker.EngineVersion(ctx, x.DockerHost)
	switch {
	case err != nil && !engineSocket(x.DockerHost):
		x.ok(check, "no Docker engine on this host")
	case err != nil:
		x.add(Finding{check, Warning, fmt.Sprintf("the Docker engine does not answer: %v", err), "containers can't be attached by name, and their restarts are not followed, until it does", "systemctl status docker"})
	case olderThan(version, 27):
		x.add(Finding{check, Note, "Docker engine " + version, "before 27.0.1 an engine refuses a pool that overlaps the host's own subnet", "give --subnet to docker network create"})
	default:
		x.ok(check, "Docker engine %s", version)
	}
}

// engineSocket reports whether there should be an engine: one was named, or the
// default socket is there.
func engineSocket(host string) bool {
	if host != "" || os.Getenv("DOCKER_HOST") != "" {
		return true
	}
	fi, err := os.Stat("/var/run/docker.sock")
	return err == nil && fi.Mode().Type() == fs.ModeSocket
}

// olderThan compares the first number of a version.
func olderThan(version string, major int) bool {
	var got int
	_, err := fmt.Sscanf(version, "%d.", &got)
	return err == nil && got < major
}
