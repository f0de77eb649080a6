// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/lease"
	"mvdhcp/provision"
)

func mac(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func granted(addr string) *dhcpclient.Binding {
	return &dhcpclient.Binding{Address: netip.MustParsePrefix(addr), Lease: time.Hour, T1: 30 * time.Minute, T2: 50 * time.Minute}
}

// TestLeaseWithoutLink: a lease for which the network driver can't make the link
// is still looked after, and released when its container never comes.
func TestLeaseWithoutLink(t *testing.T) {
	m := mac(t, "02:42:00:00:00:01")
	r := lease.Record{
		ID: "l1", State: lease.Kept, Spec: lease.Spec{Parent: "up0", MAC: m, Identity: "docker:x"}, Binding: granted("10.0.0.5/16"),
		Pool: &lease.Pool{ID: "p", Answered: netip.MustParseAddr("10.0.0.5")},
	}
	p := newDeafPlugin(t, r)
	p.open()
	p.mover.await(r.ID, m)
	req := &endpointRequest{NetworkID: "n", EndpointID: "0123456789abcdef"}
	req.Interface.Address = "10.0.0.5/16"
	if err := p.driver.give(t.Context(), Network{ID: "n", Parent: "up0"}, endpointOptions{}, req, m); err == nil {
		t.Fatal("a link was made on a host that makes none")
	}
	if _, ok := p.mover.waiting[r.ID]; !ok {
		t.Error("the lease is not waited for any more")
	}
}

// TestUnnamedWhileEngineIsSilent: an engine that does not answer is asked whose a
// lease is until it does.
func TestUnnamedWhileEngineIsSilent(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent")
	m := mac(t, "02:42:00:00:00:01")
	p := newDeafPlugin(t, lease.Record{
		ID: "l1", State: lease.Bound, Spec: lease.Spec{Parent: "up0", MAC: m}, Binding: granted("10.0.0.5/16"), Pool: &lease.Pool{ID: "p"},
	})
	p.open()
	p.mover.unnamed["l1"] = guest{"l1", m, time.Now().Add(-2 * nameFor)}
	var wg sync.WaitGroup
	p.mover.name(t.Context(), &wg)
	wg.Wait()
	if n := p.mover.open(); n != 1 {
		t.Errorf("the engine is to be asked about %d leases, want 1", n)
	}
}

// TestJoinGoesFirst: a link is not given up that a Join has just told the engine
// of, and is when none has.
func TestJoinGoesFirst(t *testing.T) {
	const id = "0123456789abcdef"
	m := mac(t, "02:42:00:00:00:01")
	p := newDeafPlugin(t, lease.Record{
		ID: "l1", State: lease.Kept, Spec: lease.Spec{Parent: "up0", MAC: m}, Binding: granted("10.0.0.5/16"),
		Pool: &lease.Pool{ID: poolOf("n"), Endpoint: id, Delay: time.Minute},
	})
	p.open()
	p.driver.ctx = t.Context()
	for _, joined := range []bool{true, false} {
		if delete(p.driver.adopting, id); joined {
			p.driver.adopting[id] = make(chan struct{}, 1)
		}
		p.driver.giveUp(id, "l1")
		if _, ok := p.Keeper.Endpoint(id); ok != joined {
			t.Errorf("joined %v: the endpoint has its lease: %v", joined, ok)
		}
	}
}

// TestInterruptedCalls: what a keeper left that was killed in the middle of calls
// is neither answered as a lease nor does ending one end the others.
func TestInterruptedCalls(t *testing.T) {
	m := mac(t, "02:42:00:00:00:01")
	interrupted := func(id, pool, endpoint string, mac net.HardwareAddr) lease.Record {
		return lease.Record{
			ID: id, State: lease.Selecting, NS: provision.Namespace{Path: "/nonexistent", Ino: 1}, Child: provision.Child{Name: "eth0", MAC: mac, NSID: -1},
			Spec: lease.Spec{Parent: "up0", MAC: mac, Ifname: "eth0", Identity: "docker:" + id}, Pool: &lease.Pool{ID: pool, Endpoint: endpoint},
		}
	}
	t.Run("IPAM", func(t *testing.T) {
		p := newDeafPlugin(t, interrupted("l1", "p", "", m), interrupted("l2", "p", "", mac(t, "02:42:00:00:00:02")))
		p.open()
		if _, ok, err := p.repeated(t.Context(), endpoint{id: "p", mac: m}, "docker:l1"); ok || err != nil {
			t.Errorf("answered %v, %v", ok, err)
		}
		ls := p.Keeper.PoolLeases("p")
		if len(ls) != 1 || ls[0].ID != "l2" {
			t.Errorf("left: %v", ls)
		}
	})
	const id = "0123456789abcdef"
	req := &endpointRequest{NetworkID: "n", EndpointID: id}
	t.Run("Join", func(t *testing.T) {
		p := newDeafPlugin(t, interrupted("l1", poolOf("n"), id, m))
		p.open()
		p.driver.networks["n"] = Network{ID: "n", Parent: "up0"}
		if a, err := p.driver.join(t.Context(), req); err == nil {
			t.Errorf("answered %v", a)
		}
	})
	t.Run("CreateEndpoint, bound", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "unix:///nonexistent")
		r := interrupted("l1", poolOf("n"), id, m)
		r.State, r.Binding, r.Pool.Delay = lease.Bound, granted("10.0.0.5/16"), time.Minute
		p := newDeafPlugin(t, r)
		p.open()
		p.driver.networks["n"] = Network{ID: "n", Parent: "up0", Timeout: time.Second}
		if a, err := p.driver.createEndpoint(t.Context(), req); err == nil {
			t.Errorf("answered %v", a)
		}
		if ls := p.Keeper.PoolLeases(""); len(ls) != 1 || !ls[0].Pool.Held() {
			t.Errorf("left: %v", ls)
		}
	})
	t.Run("CreateEndpoint", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", "unix:///nonexistent")
		p := newDeafPlugin(t, interrupted("l1", poolOf("n"), id, m))
		p.open()
		p.driver.networks["n"] = Network{ID: "n", Parent: "up0", Timeout: time.Second}
		if a, err := p.driver.createEndpoint(t.Context(), req); err == nil {
			t.Errorf("answered %v", a)
		}
		if ls := p.Keeper.PoolLeases(""); len(ls) != 0 {
			t.Errorf("left: %v", ls)
		}
	})
}
