// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"mvdhcp/dhcpclient/wire"
	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Options is what a keeper is started with. Sockets that systemd passes count
// before those that are named here.
type Options struct {
	Socket   string // of the API
	StateDir string
	Log      *slog.Logger
	Version  string
	// BootGrace is how long after a boot a lease waits for its target's namespace
	// to be set up anew. 0: the keeper's default.
	BootGrace time.Duration
	// Docker serves the engine's IPAM plugin on DockerSocket.
	Docker       bool
	DockerSocket string
	// DockerParent is the parent of the plugin's pools that name none.
	DockerParent string
}

// sweepEvery is how often targets are looked at that can end without an event.
const sweepEvery = time.Second

// Run keeps the host's leases and serves the API until ctx ends. Leases and
// addresses stay in place then. It fails when another keeper has the socket or
// the state directory.
func Run(ctx context.Context, o Options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a keeper needs root: it makes links in other namespaces; run it with sudo or as a service")
	}
	l, dl, err := listen(&o)
	if err != nil {
		return err
	}
	defer l.Close()
	if dl != nil {
		defer dl.Close()
	}
	store, aside, reason, err := lease.OpenStore(o.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if aside != "" {
		o.Log.Error("state file damaged: set aside, children are looked for in the host's namespaces", "file", aside, "error", reason)
	}
	machineID, err := machineID("/etc/machine-id", o.StateDir)
	if err != nil {
		return err
	}
	clock, err := lease.NewSystemClock()
	if err != nil {
		return err
	}
	kernel, err := provision.NewKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	plugin := &docker.Plugin{Kernel: kernel, Check: checkOptions, Parent: o.DockerParent, Pools: filepath.Join(o.StateDir, "pools.json"), Networks: store, MachineID: machineID, Log: o.Log}
	keeper, err := lease.New(lease.Config{
		Host: lease.KernelHost{Kernel: kernel}, Store: store, Clock: clock, MachineID: machineID, Log: o.Log, BootGrace: o.BootGrace,
		ParentUsed: plugin.ParentUsed,
	})
	if err != nil {
		return err
	}
	if aside != "" {
		rebuild(keeper, kernel, o.Log)
	}

	watcher := provision.NewWatcher(o.Log)
	svc := &service{keeper: keeper, kernel: kernel, options: o, started: time.Now()}
	g, ctx := errgroup.WithContext(ctx)
	plugin.Keeper, plugin.Discover = keeper, svc.discover
	g.Go(func() error {
		return watcher.Run(ctx, func(ev provision.Event) {
			keeper.Observe(ev)
			plugin.Observe(ev)
		})
	})
	g.Go(func() error { return sweep(ctx, keeper) })
	g.Go(func() error { return keeper.Run(ctx) })
	follower := &docker.Follower{Keeper: keeper, Place: place, Log: o.Log}
	g.Go(func() error { return follower.Run(ctx) })
	g.Go(func() error { return watchdog(ctx, o.Log, func() { keeper.Leases("", false) }) })
	defer context.AfterFunc(ctx, func() { notify(o.Log, sdnotify.SdNotifyStopping) })()
	if dl != nil {
		g.Go(func() error { return plugin.Serve(ctx, dl) })
	}
	g.Go(func() error {
		select {
		case <-watcher.Ready():
		case <-ctx.Done():
			return nil
		}
		// What happened since the keeper read its parents and children.
		keeper.Observe(provision.Event{Kind: provision.Resync})
		notify(o.Log, sdnotify.SdNotifyReady)
		o.Log.Info("keeper ready", "socket", o.Socket, "state", o.StateDir, "version", o.Version, "leases", len(keeper.Leases("", false)))
		return api.NewServer(svc, o.Log).Serve(ctx, l)
	})
	err = g.Wait()
	flush, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if ferr := wire.Flush(flush); ferr != nil {
		o.Log.Debug("sockets left to the kernel to close", "error", ferr)
	}
	o.Log.Info("keeper stopped: leases and addresses stay")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func sweep(ctx context.Context, k *lease.Keeper) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.Sweep()
		}
	}
}

// machineID is that in the state directory, if there is one, else machine-id(5)
// of the host or, where there is none, a new one that stays in the state
// directory.
func machineID(path, stateDir string) (string, error) {
	own := filepath.Join(stateDir, "machine-id")
	for _, p := range []string{own, path} {
		b, err := os.ReadFile(p)
		if id := strings.TrimSpace(string(b)); err == nil && len(id) >= 32 {
			return id, nil
		}
	}
	var b [16]byte
	rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	if err := os.WriteFile(own, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("failed to keep a machine id: %w", err)
	}
	return id, nil
}
