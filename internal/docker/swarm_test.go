// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// swarmNode is a host with an engine and a keeper, both under default paths.
type swarmNode struct {
	*lab.Engine
	control string // its address beside the LAN
}

// newSwarm joins engines on as many hosts, all on the lab's LAN, by a second LAN
// that is theirs.
func newSwarm(t *testing.T, l *lab.Lab, n int) []swarmNode {
	t.Helper()
	control := l.LAN("control")
	var nodes []swarmNode
	for i := range n {
		h := l.Host(fmt.Sprintf("node%d", i))
		h.Plug("ctl0", control)
		addr := control.Addr(10 + i)
		h.SetLink("ctl0", true)
		h.AddAddr("ctl0", netip.PrefixFrom(addr, control.Subnet.Bits()).String())
		s := l.Systemd(h, l.Units())
		s.Run("/bin/sh", "-c", "hostname node"+fmt.Sprint(i))
		s.Run("systemctl", "start", "mvdhcp.socket", "mvdhcp-docker.socket")
		nodes = append(nodes, swarmNode{s.Engine(), addr.String()})
		t.Cleanup(func() { nodes[i].TryDocker("swarm", "leave", "-f"); nodes[i].Close() })
	}
	nodes[0].Docker("swarm", "init", "--advertise-addr", nodes[0].control, "--listen-addr", nodes[0].control)
	token := nodes[0].Docker("swarm", "join-token", "-q", "worker")
	for _, node := range nodes[1:] {
		node.Docker("swarm", "join", "--advertise-addr", node.control, "--listen-addr", node.control, "--token", token, nodes[0].control+":2377")
	}
	return nodes
}

// TestEngineSwarm runs a service on two hosts by the config-only way: each node
// asks its own keeper, and the one DHCP server of the LAN keeps addresses apart.
func TestEngineSwarm(t *testing.T) {
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	subnet := netip.PrefixFrom(server.Addr, 16).Masked().String()
	nodes := newSwarm(t, l, 2)
	for _, n := range nodes {
		n.Docker("network", "create", "--config-only", "--ipam-driver", "mvdhcp", "--subnet", subnet, "--ipam-opt", "parent="+lab.Uplink,
			"--ipam-opt", "release-delay=0s", "-o", "parent="+lab.Uplink, "lan-config")
	}
	manager := nodes[0]
	manager.Docker("network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "lan-config", "lan")
	manager.Docker("service", "create", "--detach", "--name", "web", "--stop-grace-period", "1s", "--replicas", "4", "--network", "lan", lab.Image, "/bin/sleep", "600")

	// tasks are the addresses of the running replicas, by container, of each node;
	// the server must hold each for the container's MAC.
	tasks := func(want int) []map[string]string {
		t.Helper()
		all := make([]map[string]string, len(nodes))
		l.Eventually(3*soon, fmt.Sprintf("%d replicas run and the server holds their addresses", want), func() bool {
			addrs := map[string]bool{}
			for i, n := range nodes {
				all[i] = map[string]string{}
				ids, err := n.TryDocker("ps", "-q")
				if err != nil {
					return false
				}
				for _, id := range strings.Fields(ids) {
					out, err := n.TryDocker("inspect", "-f", "{{.NetworkSettings.Networks.lan.IPAddress}} {{.NetworkSettings.Networks.lan.MacAddress}}", id)
					addr, mac, _ := strings.Cut(out, " ")
					if held, ok := server.Lease(mac); err != nil || !ok || held.Addr.String() != addr {
						return false
					}
					all[i][id], addrs[addr] = addr, true
				}
			}
			return len(addrs) == want && len(server.Leases()) == want
		})
		return all
	}

	on := tasks(4)
	if len(on[0]) == 0 || len(on[1]) == 0 {
		t.Fatalf("the replicas are not on both hosts: %v", on)
	}
	for i, n := range nodes {
		for id := range on[i] {
			n.Docker("exec", id, "/bin/ping", "-c1", "-W5", server.Addr.String()) // the router
			for _, others := range on {
				for _, addr := range others {
					n.Docker("exec", id, "/bin/ping", "-c1", "-W5", addr)
				}
			}
		}
	}
	// The keeper of each host keeps what runs there.
	for i, n := range nodes {
		l.Eventually(soon, "the leases have moved in", func() bool {
			out, err := n.Try(l.Binary(), "leases")
			return err == nil && strings.Count(out, " bound ") == len(on[i]) && strings.Count(out, "docker:web.") == len(on[i])
		})
	}

	manager.Docker("service", "scale", "--detach", "web=1")
	on = tasks(1)

	// The one that is left moves to the other host. Engines before 29.0 tell
	// neither its name nor a MAC that lasts, so it comes with another address there.
	from := 0
	if len(on[1]) == 1 {
		from = 1
	}
	manager.Docker("node", "update", "--availability", "drain", manager.Docker("node", "ls", "-q", "--filter", "name="+fmt.Sprintf("node%d", from)))
	l.Eventually(3*soon, "the replica runs on the other host", func() bool {
		on = tasks(1)
		return len(on[from]) == 0
	})
	manager.Docker("service", "rm", "web")
	server.WaitEmpty(soon)
}

// TestEngineReplicaMoves makes the calls of engines from 29.0 on, which tell a
// task's name, as a replica moves to another node and back.
func TestEngineReplicaMoves(t *testing.T) {
	l := lab.New(t)
	server := l.Dnsmasq(lab.ServerOptions{})
	type node struct {
		*caller
		pool string
	}
	var nodes []node
	for i := range 2 {
		socket := filepath.Join(l.Dir(), fmt.Sprintf("plugin%d.sock", i))
		l.Keeper(l.Host(fmt.Sprintf("node%d", i)), "--docker", "--docker-socket", socket)
		c := newCaller(t, socket)
		pool, _ := c.call(t, "IpamDriver.RequestPool", map[string]any{
			"Pool": netip.PrefixFrom(server.Addr, 16).Masked().String(), "Options": map[string]string{"parent": lab.Uplink, "client-id": "cluster", "release-delay": "1m"},
		})["PoolID"].(string)
		nodes = append(nodes, node{c, pool})
	}
	// Neither the MAC nor the task's id lasts.
	address := func(n node, mac, name string) string {
		t.Helper()
		a := n.call(t, "IpamDriver.RequestAddress", map[string]any{"PoolID": n.pool, "Address": "", "Options": map[string]string{
			"com.docker.network.endpoint.macaddress": mac, "com.docker.network.endpoint.name": name,
		}})
		addr, _, _ := strings.Cut(fmt.Sprint(a["Address"]), "/")
		if held, ok := server.Lease(mac); !ok || held.Addr.String() != addr {
			t.Errorf("%s: answered %v, the server holds %v", name, a, server.Leases())
		}
		return addr
	}
	release := func(n node, addr string) {
		t.Helper()
		n.call(t, "IpamDriver.ReleaseAddress", map[string]string{"PoolID": n.pool, "Address": addr})
	}
	other := address(nodes[1], "02:42:00:00:00:09", "web.2.aaaaaaaaaaaaaaaaaaaaaaaaa")
	first := address(nodes[0], "02:42:00:00:00:01", "web.1.i5qkf7xm7mj74yooyt09ecd5s")
	if first == other {
		t.Errorf("two replicas have %s", first)
	}
	for i, at := range []int{1, 0, 1} {
		release(nodes[1-at], first)
		if again := address(nodes[at], fmt.Sprintf("02:42:00:00:01:%02x", i), fmt.Sprintf("web.1.%025d", i)); again != first {
			t.Errorf("on node %d the replica has %s, before %s", at, again, first)
		}
	}
}
