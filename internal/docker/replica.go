// SPDX-License-Identifier: Apache-2.0

package docker

import "regexp"

// taskName is the name of a swarm task's container: service, slot or node, and
// the task's id (moby, daemon/cluster/executor/container, containerConfig.name).
var taskName = regexp.MustCompile(`^(.+\.[0-9a-z]+)\.[0-9a-z]{25}$`)

// replica is a container's name, for a swarm task that of the replica: what runs
// it next is another task, perhaps on another node.
func replica(container string) string {
	if m := taskName.FindStringSubmatch(container); m != nil {
		return m[1]
	}
	return container
}
