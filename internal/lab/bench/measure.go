// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"mvdhcp/dhcpclient"
	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// The ways, in the order of the table.
const (
	wayFloor = iota
	wayKeeper
	waySocket
	wayCommand
	wayDefault
	wayUdhcpc
)

// bench is the set of the measurements.
type bench struct {
	lab    *lab.Lab
	server *lab.Server
	host   *lab.Host
	inside *inside
	keeper *lab.Keeper
	client *api.Client
}

// way puts one container on the LAN and takes it off again. Only attach is
// measured, by itself.
type way struct {
	name   string
	attach func(context.Context, *lab.Container) (time.Duration, error)
	detach func(context.Context, *lab.Container) error
}

func (b *bench) ways() []way {
	return []way{
		wayFloor:   {"floor: netlink calls and a bare DORA", b.floor, b.dropChild},
		wayKeeper:  {"inside the keeper, --conflict-check async", b.inside.attachAsync, b.inside.detach},
		waySocket:  {"  asked over its socket", b.keeperAsync, b.detach},
		wayCommand: {"mvdhcp attach, --conflict-check async", b.command("--conflict-check", "async"), b.detach},
		wayDefault: {"mvdhcp attach", b.command(), b.detach},
		wayUdhcpc:  {"ip link + busybox udhcpc (sets no address)", b.udhcpc, b.dropChild},
	}
}

func measure(l *lab.Lab, o options) (r report, err error) {
	ctx := context.Background()
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	say("building mvdhcp")
	l.Binary()
	l.Tool("ip")
	l.Tool("busybox")
	b := &bench{lab: l, server: l.Dnsmasq(lab.ServerOptions{Lease: 12 * time.Hour}), host: l.Host("host")}
	b.keeper = l.Keeper(b.host, "--log-level", "warn")
	b.client = api.NewClient(b.keeper.Socket)
	dir, err := os.MkdirTemp("", "mvdhcp-bench")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(dir)
	if b.inside, err = startInside(b.host, dir); err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, b.inside.stop()) }()

	say("attaching %d children", o.children)
	crowd, ctx := errgroup.WithContext(ctx)
	crowd.SetLimit(8)
	for n := range o.children {
		c := l.Container("crowd")
		crowd.Go(func() error { // half of them by each keeper
			if n%2 == 0 {
				_, err := b.inside.attach(ctx, c, dhcpclient.ConflictOff)
				return err
			}
			_, err := b.throughAPI(ctx, c, "off")
			return err
		})
	}
	if err := crowd.Wait(); err != nil {
		return report{}, err
	}
	// All namespaces are there before the first measurement and stay until after
	// the last: the kernel takes one down slowly and holds others up meanwhile.
	ways := b.ways()
	took := make([][]time.Duration, len(ways))
	subjects := make([]*lab.Container, len(ways))
	for i := range ways {
		subjects[i] = l.Container("subject")
	}
	say("taking turns")
	ctx = context.Background()
	for turn := range o.turns {
		for i := range ways {
			i = (i + turn) % len(ways) // nobody always comes after the same one
			d, err := ways[i].attach(ctx, subjects[i])
			if err != nil {
				return report{}, fmt.Errorf("%s: %w", ways[i].name, err)
			}
			took[i] = append(took[i], d)
			time.Sleep(o.pause)
			if err := ways[i].detach(ctx, subjects[i]); err != nil {
				return report{}, fmt.Errorf("%s: %w", ways[i].name, err)
			}
			time.Sleep(o.pause)
		}
	}
	r = report{Children: o.children, Turns: o.turns}
	for i, w := range ways {
		r.Results = append(r.Results, newResult(w.name, took[i]))
	}
	r.judge()
	return r, nil
}
