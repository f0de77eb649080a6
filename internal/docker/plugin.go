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
	"strings"
	"sync"
	"time"
	"unicode"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// Plugin is the engine's IPAM plugin (docker network create --ipam-driver
// mvdhcp), pools and addresses of the network's own DHCP server, and its network
// driver (-d mvdhcp). Every field is needed but Parent and Pools; Observe and ParentUsed can
// be called before Serve.
type Plugin struct {
	Keeper *lease.Keeper
	Kernel Kernel
	// Check says what is wrong with options, in the words of attach.
	Check func(Options) error
	// Discover asks the LAN behind a pool's parent for its subnet and router
	// without taking a lease.
	Discover func(context.Context, Pool) (subnet netip.Prefix, router netip.Addr, err error)
	// Parent is that of pools that name none; empty: they are refused.
	Parent string
	// Pools is the file in which the pools are remembered; empty: in memory.
	Pools string
	// Networks keeps the networks of the network driver.
	Networks  NetworkStore
	MachineID string
	Log       *slog.Logger

	once   sync.Once
	pools  *poolSet
	mover  *mover
	driver *driver
	macs   locks // of calls for one MAC

	mu      sync.Mutex
	asked   map[string]*repeat // RequestPool calls without a subnet, by parent
	claimed map[string]bool    // held leases that a call under way goes on from
}

// Kernel is what a plugin needs of the kernel; *provision.Kernel is the real one.
type Kernel interface {
	EnsureParent(name string) (p provision.Parent, made bool, err error)
	FindChild(ns *provision.NS, c provision.Child) (provision.Child, error)
	LinksUp(ns *provision.NS) ([]provision.Child, error)
	NamespaceOf(nsid int) (provision.Namespace, error)

	Host() *provision.NS
	Children(ns *provision.NS, prefix string) ([]provision.FoundChild, error)
	DeleteParked(name, prefix string) error
	HasAddress(ns *provision.NS, c provision.Child, p netip.Prefix) (bool, error)
	Routed(ns *provision.NS, c provision.Child, dsts []netip.Prefix) (bool, error)
}

// repeat counts calls that follow each other at once.
type repeat struct {
	n        int
	answered time.Time
}

// open reads what is remembered, once.
func (p *Plugin) open() {
	p.once.Do(func() {
		p.asked, p.claimed, p.mover = map[string]*repeat{}, map[string]bool{}, newMover(p)
		var err error
		if p.pools, err = openPools(p.Pools); err != nil {
			p.Log.Error("pools forgotten: a VLAN link made for one stays when its network is removed", "error", err)
		}
		p.driver = newDriver(p)
	})
}

// Observe takes an event of the kernel. It waits for nothing.
func (p *Plugin) Observe(ev provision.Event) {
	p.open()
	p.mover.observe(ev)
}

// ParentUsed tells whether a pool or a network needs the parent.
func (p *Plugin) ParentUsed(parent string) bool {
	p.open()
	return p.pools.on(parent) || p.driver.uses(parent)
}

// maxBody is more than any call of an engine takes.
const maxBody = 1 << 20

// Serve answers the engine on l until ctx ends.
func (p *Plugin) Serve(ctx context.Context, l net.Listener) error {
	p.open()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { p.mover.run(ctx) })
	wg.Go(func() { p.forgetPools(ctx, p.pools.all()) })
	p.driver.start(ctx)
	srv := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	cancel()
	wg.Wait()
	p.driver.wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (p *Plugin) handler() http.Handler {
	p.open()
	mux := http.NewServeMux()
	handle(mux, p, "/Plugin.Activate", func(context.Context, *struct{}) (any, error) {
		return map[string]any{"Implements": []string{"IpamDriver", "NetworkDriver"}}, nil
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
	p.driver.register(mux)
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
				err = errors.New("the engine repeated a call without its content, having lost the connection: try again")
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
			// An IPAM driver's error is read from Error, a network driver's from Err.
			said := "mvdhcp: " + oneLine(err)
			res = map[string]string{"Error": said, "Err": said}
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
		return nil, fmt.Errorf("--ip-range %s: the DHCP server chooses the addresses: leave it out", req.SubPool)
	}
	pl, err := parsePool(req.Pool, withParent(req.Options, p.Parent))
	if err != nil {
		return nil, err
	}
	if err := p.Check(pl.options()); err != nil {
		if flag, ok := strings.CutPrefix(err.Error(), "--"); ok {
			err = errors.New("--ipam-opt " + flag)
		}
		return nil, err
	}
	typed := pl.Subnet.IsValid()
	if !typed {
		if p.looping(pl.Parent) {
			return nil, fmt.Errorf("the engine refuses the subnet of %s again and again, as the host itself has an address or a name server in it: give the subnet with --subnet, and the router with --gateway", pl.Parent)
		}
		defer p.answered(pl.Parent)
	}
	if err := p.Keeper.CheckParent(pl.Parent); err != nil {
		return nil, err
	}
	_, made, err := p.Kernel.EnsureParent(pl.Parent)
	if err != nil {
		return nil, err
	}
	subnet, router, err := p.Discover(ctx, pl)
	if err == nil {
		if !typed {
			pl.Subnet = subnet
		} else if !pl.Subnet.Overlaps(subnet) {
			p.Log.Warn("the typed subnet is not the LAN's: runs will fail", "parent", pl.Parent, "subnet", pl.Subnet, "lan", subnet)
		}
		err = p.pools.add(pl.id())
	}
	if err != nil {
		if made {
			p.Keeper.DropParent(pl.Parent)
		}
		return nil, err
	}
	data := map[string]string{}
	if router.IsValid() && pl.Subnet.Contains(router) {
		data["com.docker.network.gateway"] = netip.PrefixFrom(router, pl.Subnet.Bits()).String()
	}
	return map[string]any{"PoolID": pl.id(), "Pool": pl.Subnet.String(), "Data": data}, nil
}

// Calls without a subnet, each so soon after the answer to the one before, with
// no pool released between them, are the engine's loop: it takes a pool that
// overlaps the host's networks for none and asks for another (libnetwork,
// requestPoolHelper).
const (
	loopCalls  = 4
	loopWithin = 200 * time.Millisecond
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
	if time.Since(r.answered) > loopWithin {
		r.n = 0
	}
	if r.n++; r.n > loopCalls {
		delete(p.asked, parent)
		return true
	}
	return false
}

// answered takes note of the end of a call without a subnet.
func (p *Plugin) answered(parent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.asked[parent]; r != nil {
		r.answered = time.Now()
	}
}

type poolID struct{ PoolID string }

// releasePool ends what the pool still holds, and takes away a parent made for
// it, with the last network that has it.
func (p *Plugin) releasePool(ctx context.Context, req *poolID) (any, error) {
	pl, err := decodePool(req.PoolID)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	delete(p.asked, pl.Parent)
	p.mu.Unlock()
	left, err := p.pools.drop(req.PoolID)
	if err != nil {
		p.Log.Error("pool released, but not in the pool file", "error", err)
	}
	if left == 0 {
		p.endPool(ctx, req.PoolID, pl)
	}
	return struct{}{}, nil
}

// endPool releases the pool's held leases, but those that are never to be
// released, and its parent.
func (p *Plugin) endPool(ctx context.Context, id string, pl Pool) {
	for _, v := range p.Keeper.PoolLeases(id) {
		if !v.Pool.Held() || v.Pool.Delay < 0 {
			continue
		}
		if _, err := p.Keeper.Release(ctx, v.ID, "its network was removed"); err != nil {
			p.Log.Warn("held lease not released", "lease", v.ID, "error", err)
		}
	}
	p.Keeper.DropParent(pl.Parent)
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

// oneLine is an error as a user's terminal takes it.
func oneLine(err error) string {
	s := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
