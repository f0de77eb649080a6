// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"time"
)

// engineTimeout is for one question to the engine: its socket can accept and
// never answer while the engine starts.
const engineTimeout = 5 * time.Second

// Container is what a container is to a keeper.
type Container struct {
	ID       string
	Name     string
	PID      int // 0: it is not running
	Hostname string
	MAC      string // the one that was typed for it
	// HostNetwork is set when it runs in the host's network namespace.
	HostNetwork bool
}

// FindContainer asks the engine at host ("" takes DOCKER_HOST, or the default
// socket) for the running container of that name, id or unique id prefix.
func FindContainer(ctx context.Context, host, name string) (Container, error) {
	e, err := newEngineClient(host)
	if err != nil {
		return Container{}, fmt.Errorf("container %s: %w", name, err)
	}
	defer e.close()
	c, err := e.inspect(ctx, name)
	if err != nil {
		return Container{}, fmt.Errorf("container %s: the Docker engine says: %w; for a namespace give netns:%s", name, err, name)
	}
	if c.PID == 0 {
		return c, fmt.Errorf("container %s is not running: start it first", c.Name)
	}
	return c, nil
}
