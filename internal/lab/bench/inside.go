// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/lab"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// inside is a keeper in this process, with all that `mvdhcp serve` gives it but
// a socket: its store on the disk, the kernel, the watcher.
type inside struct {
	keeper *lease.Keeper
	store  *lease.BoltStore
	kernel *provision.Kernel
	stop   func() error
}

// startInside needs a stop.
func startInside(host *lab.Host, dir string) (in *inside, err error) {
	in = &inside{}
	if in.store, _, _, err = lease.OpenStore(filepath.Join(dir, "state")); err != nil {
		return nil, err
	}
	ns, err := provision.Open(host.Path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if in.kernel, err = provision.NewKernelIn(ns); err != nil {
		return nil, err
	}
	clock, err := lease.NewSystemClock()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	in.keeper, err = lease.New(lease.Config{
		Host: lease.KernelHost{Kernel: in.kernel}, Store: in.store, Clock: clock, MachineID: "bench", Log: log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	watcher := provision.NewWatcherIn(log, ns)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watcher.Run(ctx, in.keeper.Observe) })
	g.Go(func() error { return in.keeper.Run(ctx) })
	in.stop = func() error {
		cancel()
		err := g.Wait()
		in.kernel.Close()
		in.store.Close()
		return err
	}
	select {
	case <-watcher.Ready():
		return in, nil
	case <-ctx.Done():
		return nil, in.stop()
	}
}

// attach does what the keeper does for a request that has come in: it opens the
// target's namespace to learn its name, and attaches it.
func (in *inside) attach(ctx context.Context, c *lab.Container, check dhcpclient.ConflictCheck) (time.Duration, error) {
	start := time.Now()
	ns, err := provision.Open(c.Path)
	if err != nil {
		return 0, err
	}
	id := ns.ID()
	ns.Close()
	_, err = in.keeper.Attach(ctx, lease.AttachOptions{
		Spec: lease.Spec{
			Identity: c.Name, Parent: lab.Uplink, Mode: provision.Bridge, Routes: lease.RoutesAll, Conflict: check,
		},
		Target: lease.Target{Kind: lease.TargetNetNS, Name: c.Target()}, NS: id, Timeout: patience,
	}, func(string) {})
	return time.Since(start), err
}

func (in *inside) attachAsync(ctx context.Context, c *lab.Container) (time.Duration, error) {
	return in.attach(ctx, c, dhcpclient.ConflictAsync)
}

func (in *inside) detach(ctx context.Context, c *lab.Container) error {
	for _, v := range in.keeper.Leases(c.Name, false) {
		if _, err := in.keeper.Release(ctx, v.ID, "detached"); err != nil {
			return err
		}
	}
	return nil
}
