// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// listed is a container as an engine lists it.
type listed struct {
	ID    string `json:"Id"`
	Names []string
	State string
	// NetworkSettings are empty, or without a MAC, while it starts.
	NetworkSettings struct {
		Networks map[string]struct{ MacAddress, IPAddress, NetworkID string }
	}
}

// name is the container's own name; the others are links to it.
func (c *listed) name() string {
	for _, n := range c.Names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// runs reports whether the container has a process.
func (c *listed) runs() bool {
	return c.State == "running" || c.State == "paused"
}

// maxFilter is how many containers a list is filtered by: the filter is part of
// the URL.
const maxFilter = 100

// resync compares every container that has leases with the engine's list, which
// an engine answers at any time. What differs is looked at.
func (f *Follower) resync(ctx context.Context, e *engineClient, host string, l *looks) error {
	leases := map[string][]lease.Record{}
	for _, r := range f.Keeper.Followed(host, "") {
		if r.Target.ContainerID == "" {
			continue // of a pool, and not known yet whose
		}
		leases[r.Target.ContainerID] = append(leases[r.Target.ContainerID], r)
	}
	if len(leases) == 0 {
		return nil
	}
	query := url.Values{}
	if len(leases) <= maxFilter {
		ids := filters{}
		for id := range leases {
			ids.add("id", id)
		}
		query = filtered(ids)
	}
	query.Set("all", "1")
	found := map[string]listed{}
	err := each(ctx, e, "/containers/json", query, func(c *listed) {
		if leases[c.ID] != nil {
			found[c.ID] = *c
		}
	})
	if err != nil {
		return fmt.Errorf("failed to list the engine's containers: %w", err)
	}
	for id, rs := range leases {
		c, ok := found[id]
		if !ok {
			l.add(id) // the list alone is no proof that it was removed
			continue
		}
		for _, r := range rs {
			switch {
			case c.name() != "" && r.Target.Name != "docker:"+c.name():
				l.add(id)
			case r.Pool != nil:
			case c.runs() && (r.State == lease.Kept || !r.NS.Alive()):
				l.add(id)
			case !c.runs():
				f.Keeper.ContainerStopped(r.ID)
			}
		}
	}
	return nil
}

// look asks for one container and brings its leases to where it is.
func (f *Follower) look(ctx context.Context, e *engineClient, host, id string) error {
	leases := f.Keeper.Followed(host, id)
	if len(leases) == 0 {
		return nil
	}
	c, err := e.inspect(ctx, id)
	switch {
	case errors.Is(err, errNotFound):
		for _, r := range leases {
			err := f.Keeper.ContainerRemoved(ctx, r.ID, id)
			if err != nil {
				return err
			}
		}
		return nil
	case err != nil:
		return err
	case c.ID != id:
		return fmt.Errorf("the engine tells of container %.64q instead", c.ID)
	}
	for _, r := range leases {
		if r.Target.Name != "docker:"+c.Name {
			if err := f.Keeper.ContainerRenamed(ctx, r.ID, id, c.Name); err != nil {
				return err
			}
		}
	}
	leases = slices.DeleteFunc(leases, func(r lease.Record) bool { return r.Pool != nil })
	switch {
	case len(leases) == 0:
		return nil
	case c.PID == 0:
		for _, r := range leases {
			f.Keeper.ContainerStopped(r.ID)
		}
		return nil
	}
	return f.started(ctx, e, host, c, leases)
}

// started hands a running container's namespace to its leases.
func (f *Follower) started(ctx context.Context, e *engineClient, host string, c Container, leases []lease.Record) error {
	p, err := f.Place(host, c)
	if err != nil {
		return err
	}
	// The process id may have been another's by the time it was looked up.
	if again, err := e.inspect(ctx, c.ID); err != nil || again.PID != c.PID {
		return errors.Join(fmt.Errorf("container %s started or stopped meanwhile", c.Name), err)
	}
	for _, r := range leases {
		var resolv *provision.ResolvFile
		if r.Spec.DNS {
			file, err := p.Resolv()
			if err != nil {
				return err
			}
			resolv = &file
		}
		if err := f.Keeper.ContainerStarted(ctx, r.ID, p.Target, p.NS, resolv); err != nil {
			return err
		}
	}
	return nil
}
