// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/lab"
)

// call makes a call of the engine to the plugin.
func (p *plant) call(method string, req, res any) {
	p.t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/run/docker/plugins/"+p.driver+".sock")
	}}}
	b, err := json.Marshal(req)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := c.Post("http://plugin/IpamDriver."+method, "application/json", bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(res); err != nil {
		p.t.Fatal(err)
	}
}

// TestEnginePoolStale: an address that was asked for and has no endpoint is
// released once the engine says so, and not before. Nothing else is.
func TestEnginePoolStale(t *testing.T) {
	p := newPlant(t)
	p.network()
	p.networked("web")
	web := p.exact("web")["web"]
	mark := p.wire.Mark()

	p.front.hang(true)
	var pool struct{ PoolID string }
	p.call("RequestPool", map[string]any{"Options": map[string]string{"parent": "up0", "release-delay": "2s"}}, &pool)
	stale, err := net.ParseMAC("02:42:00:00:0b:ad")
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Address, Error string }
	p.call("RequestAddress", map[string]any{"PoolID": pool.PoolID, "Options": map[string]string{"com.docker.network.endpoint.macaddress": stale.String()}}, &got)
	if got.Error != "" {
		t.Fatal(got.Error)
	}
	// The keeper says that it asks in vain.
	p.l.Eventually(2*time.Minute, "the engine is asked for its endpoints", func() bool {
		return bytes.Contains([]byte(p.k.Process().Output()), []byte("the engine does not say whether it holds them"))
	})
	for _, pkt := range p.wire.After(mark) {
		if pkt.Is(dhcpv4.MessageTypeRelease, nil) {
			t.Errorf("before the engine said anything: %v", pkt)
		}
	}
	p.front.hang(false)
	p.wire.WaitAfter(mark, soon, "release of "+got.Address, func(pkt lab.Packet) bool { return pkt.Is(dhcpv4.MessageTypeRelease, stale) })
	p.exact("web")
	p.quiet(web, mark)
}
