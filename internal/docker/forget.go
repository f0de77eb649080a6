// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"mvdhcp/lease"
)

// forgetEvery is how often an engine that does not answer is asked again.
const forgetEvery = 10 * time.Second

// forgetPools ends the pools that an earlier keeper remembered and whose
// networks were removed while none ran. Only the engine's own word counts.
func (p *Plugin) forgetPools(ctx context.Context, remembered map[string]int) {
	if len(remembered) == 0 {
		return
	}
	for {
		count, err := networkPools(ctx)
		if err == nil {
			p.forget(ctx, remembered, count)
			return
		}
		if !errors.Is(err, context.Canceled) {
			p.Log.Debug("networks not listed", "error", err)
		}
		if !pause(ctx, forgetEvery) {
			return
		}
	}
}

func (p *Plugin) forget(ctx context.Context, remembered, count map[string]int) {
	for id, n := range remembered {
		if count[id] >= n {
			continue
		}
		done, err := p.pools.set(id, n, count[id])
		if err != nil {
			p.Log.Error("pool not forgotten", "error", err)
		}
		if pl, err := decodePool(id); err == nil && done && count[id] == 0 {
			p.Log.Info("network was removed while no keeper ran", "parent", pl.Parent, "subnet", pl.Subnet)
			p.endPool(ctx, id, pl)
		}
	}
}

// forgetNetworks ends the driver's networks that were removed while no keeper
// ran: the engine removes a network also when its driver does not answer, and
// never tells of it again. Only the engine's own word counts.
func (d *driver) forgetNetworks(ctx context.Context) {
	d.mu.Lock()
	ids := slices.Sorted(maps.Keys(d.restored))
	d.mu.Unlock()
	for {
		if ids = d.forgetRemoved(ctx, ids); len(ids) == 0 || !pause(ctx, forgetEvery) {
			return
		}
	}
}

// forgetRemoved asks the engine for each network once, ends those that it says it
// does not have, and returns those that it says nothing about.
func (d *driver) forgetRemoved(ctx context.Context, ids []string) (left []string) {
	for i, id := range ids {
		err := engine(func(e *engineClient) error {
			_, err := e.network(ctx, id)
			return err
		})
		switch {
		case errors.Is(err, errNotFound):
			d.forgetNetwork(ctx, id)
		case errors.Is(err, context.DeadlineExceeded): // it would keep silent about the others, too
			return append(left, ids[i:]...)
		case err != nil:
			left = append(left, id)
		}
	}
	return left
}

// forgetNetwork ends a network that the engine does not have, unless it has told
// of it since or a container is on it.
func (d *driver) forgetNetwork(ctx context.Context, id string) {
	defer d.changes.lock(id)()
	d.mu.Lock()
	restored := d.restored[id]
	d.mu.Unlock()
	inUse := slices.ContainsFunc(d.Keeper.PoolLeases(poolOf(id)), func(v lease.View) bool { return !v.Pool.Held() })
	if !restored || inUse {
		return
	}
	d.Log.Info("network was removed while no keeper ran", "network", id)
	if err := d.endNetwork(ctx, id); err != nil {
		d.Log.Error("network not forgotten", "network", id, "error", err)
	}
}
