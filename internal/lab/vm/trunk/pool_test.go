// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
)

// plugin makes the calls that an engine makes of an IPAM driver.
type plugin struct {
	t      *testing.T
	client http.Client
}

func newPlugin(t *testing.T, socket string) *plugin {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}
	return &plugin{t: t, client: http.Client{Transport: tr}}
}

// call returns a member of the answer, which must be no Error.
func (p *plugin) call(method string, body map[string]any, member string) string {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.client.Post("http://plugin/IpamDriver."+method, "application/json", bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		p.t.Fatal(err)
	}
	if e := answer["Error"]; e != nil {
		p.t.Fatalf("%s: %v", method, e)
	}
	s, _ := answer[member].(string)
	return s
}

func (p *plugin) pool(parent string, more ...string) string {
	p.t.Helper()
	opts := map[string]string{"parent": parent, "release-delay": "0s"}
	for i := 0; i+1 < len(more); i += 2 {
		opts[more[i]] = more[i+1]
	}
	return p.call("RequestPool", map[string]any{"Pool": "", "Options": opts}, "PoolID")
}

func (p *plugin) release(pool string) {
	p.t.Helper()
	p.call("ReleasePool", map[string]any{"PoolID": pool}, "")
}

// TestPoolParent: a VLAN link that an address pool needs is made with the first
// and goes with the last pool or lease that uses it, also when the keeper was
// another one meanwhile; one that was there before stays.
func TestPoolParent(t *testing.T) {
	l := newLAN(t)
	socket := filepath.Join(t.TempDir(), "p.sock")
	k := newKeeper(t, "--docker", "--docker-socket", socket)
	p := newPlugin(t, socket)
	l.namespace("a")

	first, second := p.pool("ens192.100"), p.pool("ens192.100", "hostname", "off")
	made(t, "ens192.100", 100)
	a := k.attach("a", "ens192.100")
	p.release(first)
	made(t, "ens192.100", 100) // a and the second pool use it
	k.detach("a")
	l.servers[100].freed(a.MAC)
	made(t, "ens192.100", 100) // the second pool alone
	k.stop(syscall.SIGKILL)
	k.start()

	const mac = "02:42:00:00:00:01"
	addr := p.call("RequestAddress", map[string]any{"PoolID": second, "Address": "", "Options": map[string]string{"com.docker.network.endpoint.macaddress": mac}}, "Address")
	held := l.servers[100].holds(mac, network[100])
	if addr != held+"/24" {
		t.Errorf("answered %s, the server holds %s", addr, held)
	}
	p.call("ReleaseAddress", map[string]any{"PoolID": second, "Address": held}, "")
	l.servers[100].freed(mac)
	made(t, "ens192.100", 100)

	// The same pool twice, as two networks have it.
	third := p.pool("ens192.100", "hostname", "off")
	if third != second {
		t.Errorf("pools of the same options: %q, %q", second, third)
	}
	p.release(second)
	made(t, "ens192.100", 100)
	p.release(third)
	absent(t, "ens192.100")

	// A pool that ends before the lease leaves the link to it.
	pool := p.pool("ens192.100")
	a = k.attach("a", "ens192.100")
	p.release(pool)
	l.granted("a", 100, a)
	made(t, "ens192.100", 100)
	k.detach("a")
	l.servers[100].freed(a.MAC)
	absent(t, "ens192.100")

	l.vlan("ens192.101", 101)
	p.release(p.pool("ens192.101"))
	if links(t, "")["ens192.101"].Info.Kind != "vlan" {
		t.Error("a link that was there before is gone")
	}
}
