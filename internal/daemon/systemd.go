// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"mvdhcp/internal/api"
)

// Names of the sockets that systemd passes (FileDescriptorName= in the units).
const (
	fdAPI    = "api"
	fdDocker = "docker"
)

// listen opens the keeper's sockets, or takes those that systemd holds for it
// (sd_listen_fds(3)). The second is nil without Docker; a passed one turns Docker
// on. o names what is listened on afterwards.
func listen(o *Options) (l, plugin net.Listener, err error) {
	passed, err := passedSockets()
	if err != nil {
		return nil, nil, err
	}
	if s := passed[fdAPI]; s != nil {
		o.Socket = s.Addr().String()
		l, err = api.Inherit(s)
	} else {
		l, err = api.Listen(o.Socket)
	}
	if err != nil {
		return nil, nil, err
	}
	if s := passed[fdDocker]; s != nil {
		o.Docker, o.DockerSocket = true, s.Addr().String()
		s.SetUnlinkOnClose(false)
		return l, s, nil
	}
	if !o.Docker {
		return l, nil, nil
	}
	if plugin, err = api.Listen(o.DockerSocket); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("docker plugin: %w", err), l.Close())
	}
	return l, plugin, nil
}

// passedSockets are the sockets that systemd passes, by name.
func passedSockets() (map[string]*net.UnixListener, error) {
	all, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("failed to take over sockets from systemd: %w", err)
	}
	passed := map[string]*net.UnixListener{}
	for name, ls := range all {
		u, ok := ls[0].(*net.UnixListener)
		if name != fdAPI && name != fdDocker || len(ls) != 1 || !ok {
			return nil, fmt.Errorf("%d sockets named %q from systemd: pass one listening unix socket named %s, one named %s, or both (FileDescriptorName=)", len(ls), name, fdAPI, fdDocker)
		}
		passed[name] = u
	}
	return passed, nil
}

// notify tells systemd, where it wants to know, how the keeper is (sd_notify(3)).
func notify(log *slog.Logger, state string) {
	if _, err := sdnotify.SdNotify(false, state); err != nil {
		log.Warn("systemd not told", "state", state, "error", err)
	}
}

// watchdog tells systemd, where it wants to know (WatchdogSec=), that the keeper
// lives: alive must return for that.
func watchdog(ctx context.Context, log *slog.Logger, alive func()) error {
	every, err := sdnotify.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil // nobody waits for it
	}
	t := time.NewTicker(every / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			alive()
			notify(log, sdnotify.SdNotifyWatchdog)
		}
	}
}
