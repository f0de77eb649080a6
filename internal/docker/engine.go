// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"mvdhcp/lease"
)

// engineTimeout is for one question to the engine: its socket can accept and
// never answer while the engine starts.
const engineTimeout = 5 * time.Second

// Container is what a running container is to a keeper.
type Container struct {
	ID       string
	Name     string
	PID      int
	Hostname string
	// HostNetwork is set when it runs in the host's network namespace.
	HostNetwork bool
}

// FindContainer asks the engine at host ("" takes DOCKER_HOST, or the default
// socket) for the running container of that name, id or unique id prefix.
func FindContainer(ctx context.Context, host, name string) (Container, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	opts := []client.Opt{client.FromEnv}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	c, err := client.New(opts...)
	if err != nil {
		return Container{}, fmt.Errorf("container %s: no client for the Docker engine: %w", name, err)
	}
	defer c.Close()
	res, err := c.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return Container{}, fmt.Errorf("container %s: the Docker engine says: %w; for a namespace give netns:%s", name, err, name)
	}
	info := res.Container
	found := Container{ID: info.ID, Name: strings.TrimPrefix(info.Name, "/")}
	if info.State == nil || !info.State.Running || info.State.Pid == 0 {
		return found, fmt.Errorf("container %s is not running: start it first", found.Name)
	}
	found.PID = info.State.Pid
	if info.Config != nil {
		found.Hostname = info.Config.Hostname
	}
	found.HostNetwork = info.HostConfig != nil && info.HostConfig.NetworkMode.IsHost()
	return found, nil
}

// owner names the container with that MAC, and its network, as the engine lists
// them; ok is false when the engine doesn't, or doesn't answer.
func owner(ctx context.Context, t lease.Target, mac net.HardwareAddr) (_ lease.Target, network string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	c, err := client.New(client.FromEnv)
	if err != nil {
		return t, "", false
	}
	defer c.Close()
	list, err := c.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return t, "", false
	}
	for _, s := range list.Items {
		if s.NetworkSettings == nil {
			continue
		}
		for name, n := range s.NetworkSettings.Networks {
			if n != nil && n.MacAddress.String() == mac.String() && len(s.Names) > 0 {
				t.Name, t.ContainerID = "docker:"+strings.TrimPrefix(s.Names[0], "/"), s.ID
				return t, name, true
			}
		}
	}
	return t, "", false
}
