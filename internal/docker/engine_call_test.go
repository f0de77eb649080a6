// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// caller makes the engine's calls at a plugin's socket.
type caller struct{ http.Client }

func newCaller(t *testing.T, socket string) *caller {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &caller{http.Client{Transport: tr}}
}

// post sends a body as it is and returns the status and the answer.
func (c *caller) post(t *testing.T, method string, body []byte) (status int, answer map[string]any) {
	t.Helper()
	res, err := c.Post("http://plugin/"+method, "application/vnd.docker.plugins.v1.2+json", bytes.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v", method, err)
		return 0, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode == http.StatusOK {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		t.Errorf("%s: %d %q: %v", method, res.StatusCode, b, err)
	}
	return res.StatusCode, answer
}

func (c *caller) call(t *testing.T, method string, body any) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	_, answer := c.post(t, method, b)
	return answer
}

// pool asks for a pool on the network's parent and returns its id.
func (v *vlan) pool(subnet string) string {
	v.t.Helper()
	a := newCaller(v.t, v.plugin).call(v.t, "IpamDriver.RequestPool", map[string]any{
		"AddressSpace": "mvdhcp", "Pool": subnet, "SubPool": "", "V6": false,
		"Options": map[string]string{"parent": v.parent, "release-delay": "0s"},
	})
	id, _ := a["PoolID"].(string)
	if id == "" {
		v.t.Fatalf("no pool: %v", a)
	}
	v.t.Cleanup(func() { newCaller(v.t, v.plugin).call(v.t, "IpamDriver.ReleasePool", map[string]string{"PoolID": id}) })
	return id
}

// address asks for an address; "" is a refusal.
func (v *vlan) address(pool, addr, mac, name string) string {
	v.t.Helper()
	opts := map[string]string{"com.docker.network.endpoint.macaddress": mac}
	if name != "" {
		opts["com.docker.network.endpoint.name"] = name
	}
	a := newCaller(v.t, v.plugin).call(v.t, "IpamDriver.RequestAddress", map[string]any{"PoolID": pool, "Address": addr, "Options": opts})
	got, _ := a["Address"].(string)
	got, _, _ = strings.Cut(got, "/")
	if got == "" {
		v.t.Logf("refused: %v", a)
	}
	return got
}

func (v *vlan) release(pool, addr string) {
	v.t.Helper()
	newCaller(v.t, v.plugin).call(v.t, "IpamDriver.ReleaseAddress", map[string]string{"PoolID": pool, "Address": addr})
}
