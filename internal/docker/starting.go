// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// asker asks the engine while the engine waits for the driver. The engine
// answers some questions then, and not others: every one has a short time.
type asker struct {
	life context.Context // questions that nobody waits for end with it
	wg   *sync.WaitGroup

	mu sync.Mutex
	// names are the networks', by id.
	names map[string]string
	// silent is until when an engine that did not answer is left alone.
	silent time.Time
}

// Bounds of what is asked from within a call of the engine.
const (
	askFor       = time.Second
	silentFor    = 10 * time.Second
	maxCandidate = 16
	// lockedFor is how long an engine that answers at once keeps silent about a
	// container before that counts as being locked.
	lockedFor = 30 * time.Millisecond
	// patience is for a question that the engine answers once the container has
	// started: ending it earlier would be an error in the engine's log.
	patience = time.Minute
)

var errNotCertain = errors.New("not certain")

// starting returns the container that the engine is just starting on the
// network. The engine holds a container's lock from the beginning of its start
// to the end, and a question about that one container waits for the lock. So it
// is the one that does not run, is on the network, and about which the engine
// says nothing while it answers everything else.
func (a *asker) starting(ctx context.Context, network string) (found Container, name string, err error) {
	c, done, ctx, err := a.open(ctx)
	if err != nil {
		return found, "", err
	}
	defer func() { done(err) }()
	if name, err = a.name(ctx, c, network); err != nil {
		return found, "", err
	}
	query := filtered(filters{}.add("status", "created", "exited", "restarting"))
	query.Set("all", "1")
	var may []Container
	err = each(ctx, c, "/containers/json", query, func(l *listed) {
		if l.name() == "" {
			return
		}
		for on, e := range l.NetworkSettings.Networks {
			if on == name || e.NetworkID == network {
				may = append(may, Container{ID: l.ID, Name: l.name()})
				break
			}
		}
	})
	if err != nil {
		return found, name, err
	}
	if len(may) == 0 || len(may) > maxCandidate {
		return found, name, fmt.Errorf("%d containers on network %s are not running: %w", len(may), name, errNotCertain)
	}
	locked, err := a.locked(ctx, c, network, may)
	if err != nil {
		return found, name, err
	}
	if len(locked) != 1 {
		return found, name, fmt.Errorf("%d containers on network %s are being started: %w", len(locked), name, errNotCertain)
	}
	return locked[0], name, nil
}

// locked returns those of the containers about which the engine keeps silent.
func (a *asker) locked(ctx context.Context, c *engineClient, network string, may []Container) (locked []Container, err error) {
	answered := make(chan int, len(may))
	for i, m := range may {
		a.wg.Go(func() {
			ctx, cancel := context.WithTimeout(a.life, patience)
			defer cancel()
			if _, err := c.inspect(ctx, m.ID); err == nil {
				answered <- i
			}
		})
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(lockedFor):
	}
	// An engine that is merely slow is slow with this too.
	for range 2 {
		if _, err := c.network(ctx, network); err != nil {
			return nil, err
		}
	}
	silent := make([]bool, len(may))
	for i := range silent {
		silent[i] = true
	}
	for {
		select {
		case i := <-answered:
			silent[i] = false
			continue
		default:
		}
		break
	}
	for i, m := range may {
		if silent[i] {
			locked = append(locked, m)
		}
	}
	return locked, nil
}

// network asks the engine for a network as it told of it when it was created.
func (a *asker) network(ctx context.Context, id string) (req networkRequest, err error) {
	c, done, ctx, err := a.open(ctx)
	if err != nil {
		return req, err
	}
	defer func() { done(err) }()
	res, err := c.network(ctx, id)
	if err != nil {
		return req, err
	}
	generic := map[string]any{}
	for name, v := range res.Options {
		generic[name] = v
	}
	req = networkRequest{NetworkID: id, Options: map[string]any{
		optGeneric: generic, optIPv6: res.EnableIPv6, optInternal: res.Internal,
	}}
	for _, cfg := range res.IPAM.Config {
		subnet, err := netip.ParsePrefix(cfg.Subnet)
		if err == nil && subnet.Addr().Is4() && subnet.Bits() > 0 {
			data := struct{ AddressSpace, Pool, Gateway string }{Pool: subnet.String()}
			if res.IPAM.Driver == res.Driver {
				data.AddressSpace = addressSpace
			}
			req.IPv4Data = append(req.IPv4Data, data)
		}
	}
	return req, nil
}

// name is the network's name, which never changes.
func (a *asker) name(ctx context.Context, c *engineClient, network string) (string, error) {
	a.mu.Lock()
	name := a.names[network]
	a.mu.Unlock()
	if name != "" {
		return name, nil
	}
	res, err := c.network(ctx, network)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names[network] = res.Name
	return res.Name, nil
}

// open returns a client and a context that ends with askFor. done closes them,
// and has an engine that kept silent left alone for a while.
func (a *asker) open(ctx context.Context) (c *engineClient, done func(error), _ context.Context, err error) {
	a.mu.Lock()
	silent := time.Now().Before(a.silent)
	a.mu.Unlock()
	if silent {
		return nil, nil, ctx, errors.New("the engine has not answered a moment ago")
	}
	if c, err = newEngineClient(""); err != nil {
		return nil, nil, ctx, err
	}
	c.timeout = patience
	ctx, cancel := context.WithTimeout(ctx, askFor)
	return c, func(err error) {
		cancel()
		c.close()
		if errors.Is(err, context.DeadlineExceeded) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.silent = time.Now().Add(silentFor)
		}
	}, ctx, nil
}

func (a *asker) forget(network string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.names, network)
}
