// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Plugin is the engine's IPAM plugin (docker network create --ipam-driver
// mvdhcp): pools and addresses of the network's own DHCP server.
type Plugin struct {
	Keeper *lease.Keeper
	Kernel *provision.Kernel
	// Check says what is wrong with a pool's options, in the words of attach.
	Check func(Pool) error
	// Discover asks the LAN behind a parent for its subnet and router without
	// taking a lease.
	Discover func(ctx context.Context, parent string) (subnet netip.Prefix, router netip.Addr, err error)
	Log      *slog.Logger

	mu     sync.Mutex
	asked  map[string]*repeat // RequestPool calls without a subnet, by parent
	moving map[string]bool    // leases that are looked for in containers
	wg     sync.WaitGroup
	ctx    context.Context
}

// repeat counts calls that follow each other at once.
type repeat struct {
	n    int
	last time.Time
}

// maxBody is more than any call of an engine takes.
const maxBody = 1 << 20

// Serve answers the engine on l until ctx ends.
func (p *Plugin) Serve(ctx context.Context, l net.Listener) error {
	p.asked, p.moving, p.ctx = map[string]*repeat{}, map[string]bool{}, ctx
	for _, v := range p.Keeper.PoolLeases("") {
		if v.State == lease.Kept && !v.Pool.Held() {
			p.moveIn(v.ID)
		}
	}
	srv := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	p.wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (p *Plugin) handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, p, "/Plugin.Activate", func(context.Context, *struct{}) (any, error) {
		return map[string]any{"Implements": []string{"IpamDriver"}}, nil
	})
	handle(mux, p, "/IpamDriver.GetCapabilities", func(context.Context, *struct{}) (any, error) {
		return map[string]bool{"RequiresMACAddress": true, "RequiresRequestReplay": false}, nil
	})
	handle(mux, p, "/IpamDriver.GetDefaultAddressSpaces", func(context.Context, *struct{}) (any, error) {
		// One name for both: from 27.0.1 on the engine then takes pools that
		// overlap the host's own networks.
		return map[string]string{"LocalDefaultAddressSpace": "mvdhcp", "GlobalDefaultAddressSpace": "mvdhcp"}, nil
	})
	handle(mux, p, "/IpamDriver.RequestPool", p.requestPool)
	handle(mux, p, "/IpamDriver.ReleasePool", p.releasePool)
	handle(mux, p, "/IpamDriver.RequestAddress", p.requestAddress)
	handle(mux, p, "/IpamDriver.ReleaseAddress", p.releaseAddress)
	return mux
}

// handle answers one method. Calls that take parameters are refused without a
// body: the engine repeats a call with an empty one after a lost connection.
func handle[T any](mux *http.ServeMux, p *Plugin, path string, call func(context.Context, *T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var req T
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, plain := any(&req).(*struct{}); err == nil && !plain {
			if len(body) == 0 {
				err = errors.New("empty request")
			} else {
				err = json.Unmarshal(body, &req)
			}
		}
		var res any
		if err == nil {
			res, err = call(r.Context(), &req)
		}
		if err != nil {
			p.Log.Warn("engine call refused", "call", path, "error", err)
			res = map[string]string{"Error": "mvdhcp: " + err.Error()}
		}
		w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
		if err := json.NewEncoder(w).Encode(res); err != nil {
			p.Log.Debug("answer not sent", "call", path, "error", err)
		}
	})
}

type poolRequest struct {
	Pool    string
	SubPool string
	Options map[string]string
	V6      bool
}

// requestPool answers with the subnet that was typed or, without one, the LAN's.
func (p *Plugin) requestPool(ctx context.Context, req *poolRequest) (any, error) {
	if req.V6 {
		return nil, errors.New("IPv6 is not served: create the network without --ipv6")
	}
	if req.SubPool != "" {
		return nil, fmt.Errorf("--ip-range %s: the DHCP server chooses the addresses; leave it out", req.SubPool)
	}
	pl, err := parsePool(req.Pool, req.Options)
	if err != nil {
		return nil, err
	}
	if err := p.Check(pl); err != nil {
		return nil, err
	}
	typed := pl.Subnet.IsValid()
	if !typed && p.looping(pl.Parent) {
		return nil, fmt.Errorf("the engine refuses the subnet of %s again and again since the host has an address in it: give it with --subnet", pl.Parent)
	}
	if _, _, err := p.Kernel.EnsureParent(pl.Parent); err != nil {
		return nil, err
	}
	subnet, router, err := p.Discover(ctx, pl.Parent)
	switch {
	case err != nil && !typed:
		if rerr := p.Kernel.RemoveParent(pl.Parent); rerr != nil {
			p.Log.Debug("parent stays", "parent", pl.Parent, "reason", rerr)
		}
		return nil, fmt.Errorf("%w; or give --subnet", err)
	case err != nil:
		p.Log.Warn("no DHCP server answers for the pool yet", "parent", pl.Parent, "error", err)
	}
	if !typed {
		pl.Subnet = subnet
	}
	data := map[string]string{}
	if router.IsValid() && pl.Subnet.Contains(router) {
		data["com.docker.network.gateway"] = netip.PrefixFrom(router, pl.Subnet.Bits()).String()
	}
	return map[string]any{"PoolID": pl.id(), "Pool": pl.Subnet.String(), "Data": data}, nil
}

// Calls without a subnet that come this often this fast are the engine's loop.
const (
	loopCalls  = 4
	loopWithin = 5 * time.Second
)

func (p *Plugin) looping(parent string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.asked[parent]
	if r == nil {
		if len(p.asked) > 1000 {
			clear(p.asked)
		}
		r = &repeat{}
		p.asked[parent] = r
	}
	if time.Since(r.last) > loopWithin {
		r.n = 0
	}
	r.n, r.last = r.n+1, time.Now()
	if r.n > loopCalls {
		r.n = 0
		return true
	}
	return false
}

type poolID struct{ PoolID string }

// releasePool releases what the pool still holds, and a parent made for it.
func (p *Plugin) releasePool(ctx context.Context, req *poolID) (any, error) {
	pl, err := decodePool(req.PoolID)
	if err != nil {
		return nil, err
	}
	for _, v := range p.Keeper.PoolLeases(req.PoolID) {
		if !v.Pool.Held() {
			continue
		}
		if _, err := p.Keeper.Release(ctx, v.ID, "its network was removed"); err != nil {
			p.Log.Warn("held lease not released", "lease", v.ID, "error", err)
		}
	}
	if err := p.Kernel.RemoveParent(pl.Parent); err != nil {
		p.Log.Debug("parent stays", "parent", pl.Parent, "reason", err)
	}
	return struct{}{}, nil
}

type addressRequest struct {
	PoolID  string
	Address string
	Options map[string]string
}

// releaseAddress starts the address's grace.
func (p *Plugin) releaseAddress(ctx context.Context, req *addressRequest) (any, error) {
	if _, err := decodePool(req.PoolID); err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(req.Address)
	if err != nil {
		return nil, fmt.Errorf("address %q: not an address", req.Address)
	}
	return struct{}{}, p.Keeper.GiveUp(ctx, req.PoolID, addr)
}
