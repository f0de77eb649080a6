// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// netnsDir is where ip-netns(8) keeps the named namespaces.
const netnsDir = "/run/netns/"

// resolved is a target as an attach needs it.
type resolved struct {
	target   lease.Target
	ns       provision.Namespace
	identity string // by default
	hostname string // by default
	resolv   func() (provision.ResolvFile, error)
}

// resolve finds the namespace of a TARGET.
func resolve(ctx context.Context, text, dockerHost string) (r resolved, err error) {
	t, err := api.ParseTarget(text)
	if err != nil {
		return r, err
	}
	path := ""
	switch t.Kind {
	case api.TargetNetNS:
		path = t.Name
		if !strings.HasPrefix(path, "/") {
			path = netnsDir + t.Name
		}
		path = filepath.Clean(path)
		name := strings.TrimPrefix(path, "/var"+netnsDir)
		name = strings.TrimPrefix(name, netnsDir)
		r.target = lease.Target{Kind: lease.TargetNetNS, Name: "netns:" + name}
		r.identity = name
		r.resolv = func() (provision.ResolvFile, error) {
			if strings.Contains(name, "/") {
				return provision.ResolvFile{}, fmt.Errorf("%s has no resolv.conf of its own: only namespaces under %s do", r.target.Name, netnsDir)
			}
			return provision.NamedResolv(name)
		}
	case api.TargetPID:
		pid, err := strconv.Atoi(t.Name)
		if err != nil {
			return r, fmt.Errorf("process %s: %w", t.Name, err)
		}
		r.target = processTarget(pid)
		r.identity = r.target.Name
	case api.TargetDocker:
		c, err := docker.FindContainer(ctx, dockerHost, t.Name)
		if err != nil {
			return r, err
		}
		return containerTarget(c, dockerHost)
	}
	if r.target.PID != 0 {
		err = r.process()
	} else {
		r.ns, err = namespace(path, r.target)
	}
	return r, err
}

// containerTarget is the target that a running container is.
func containerTarget(c docker.Container, dockerHost string) (r resolved, err error) {
	if c.HostNetwork {
		return r, fmt.Errorf("container %s runs in the host's own network: it needs no child", c.Name)
	}
	r.target = processTarget(c.PID)
	r.target.Kind, r.target.Name = lease.TargetDocker, "docker:"+c.Name
	r.target.ContainerID, r.target.DockerHost = c.ID, dockerHost
	r.identity, r.hostname = c.Name, c.Hostname
	err = r.process()
	return r, err
}

// place is containerTarget for a follower.
func place(host string, c docker.Container) (docker.Place, error) {
	r, err := containerTarget(c, host)
	return docker.Place{Target: r.target, NS: r.ns, Resolv: r.resolv}, err
}

// process fills in what follows from the target's process.
func (r *resolved) process() (err error) {
	pid := r.target.PID
	r.resolv = func() (provision.ResolvFile, error) { return provision.ProcessResolv(pid) }
	r.ns, err = namespace(fmt.Sprintf("/proc/%d/ns/net", pid), r.target)
	return err
}

func namespace(path string, t lease.Target) (provision.Namespace, error) {
	ns, err := provision.Open(path)
	switch {
	case errors.Is(err, provision.ErrGone) || errors.Is(err, os.ErrNotExist):
		hint := "check with `ip netns`"
		if t.PID != 0 {
			hint = "check with `ps`"
		}
		return provision.Namespace{}, fmt.Errorf("no such target %s: %s is not there; %s", t.Name, path, hint)
	case err != nil:
		return provision.Namespace{}, fmt.Errorf("target %s: %w", t.Name, err)
	}
	defer ns.Close()
	if ns.IsHost() {
		return provision.Namespace{}, fmt.Errorf("target %s is the host's own network namespace: give one of its own", t.Name)
	}
	return ns.ID(), nil
}

func processTarget(pid int) lease.Target {
	start, _ := provision.ProcessStart(pid) // 0: not known, the namespace alone counts
	return lease.Target{Kind: lease.TargetPID, Name: "pid:" + strconv.Itoa(pid), PID: pid, PIDStart: start}
}
