// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"mvdhcp/dhcpclient/wire"
	"mvdhcp/internal/api"
	"mvdhcp/internal/docker"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Options is what a keeper is started with.
type Options struct {
	Socket   string // of the API
	StateDir string
	Log      *slog.Logger
	Version  string
	// Docker serves the engine's IPAM plugin on DockerSocket.
	Docker       bool
	DockerSocket string
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
	l, err := api.Listen(o.Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	var dl net.Listener
	if o.Docker {
		if dl, err = api.Listen(o.DockerSocket); err != nil {
			return fmt.Errorf("docker plugin: %w", err)
		}
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
	keeper, err := lease.New(lease.Config{
		Host: lease.KernelHost{Kernel: kernel}, Store: store, Clock: clock, MachineID: machineID, Log: o.Log,
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
	g.Go(func() error { return watcher.Run(ctx, keeper.Observe) })
	g.Go(func() error { return sweep(ctx, keeper) })
	g.Go(func() error { return keeper.Run(ctx) })
	if dl != nil {
		plugin := &docker.Plugin{Keeper: keeper, Kernel: kernel, Check: checkPool, Discover: svc.discover, Log: o.Log}
		g.Go(func() error { return plugin.Serve(ctx, dl) })
	}
	g.Go(func() error {
		select {
		case <-watcher.Ready():
		case <-ctx.Done():
			return nil
		}
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

// machineID is machine-id(5) of the host or, where there is none, one of our own
// that stays in the state directory.
func machineID(path, stateDir string) (string, error) {
	own := filepath.Join(stateDir, "machine-id")
	for _, p := range []string{path, own} {
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
