// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"mvdhcp/internal/lab"
)

// TestOneHeldLease: of several calls at once that could go on from the only held
// lease, one does, and all are answered.
func TestOneHeldLease(t *testing.T) {
	const n = 12
	for _, tt := range []struct {
		name    string
		prepare func(e *fakeEngine) (call func(ctx context.Context, i int) (addr string, err error), end func(addr string))
	}{
		{"network driver", func(e *fakeEngine) (func(context.Context, int) (string, error), func(string)) {
			e.createNetwork(`,"release-delay":"1m"`)
			return func(ctx context.Context, i int) (string, error) {
					_, a, err := e.post(ctx, "NetworkDriver.CreateEndpoint", endpoint(endpointID(i), emptyInterface))
					is, _ := a["Interface"].(map[string]any)
					addr, _ := is["Address"].(string)
					return addr, asError(a, err)
				}, func(string) {
					e.call("NetworkDriver.DeleteEndpoint", endpoint(endpointID(0), ""))
				}
		}},
		{"IPAM", func(e *fakeEngine) (func(context.Context, int) (string, error), func(string)) {
			pool := e.call("IpamDriver.RequestPool", `{"Options":{"parent":"up0","release-delay":"1m"}}`)["PoolID"]
			return func(ctx context.Context, i int) (string, error) {
					_, a, err := e.post(ctx, "IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Options":{"com.docker.network.endpoint.macaddress":"02:42:00:00:00:%02x"}}`, pool, i))
					addr, _ := a["Address"].(string)
					return addr, asError(a, err)
				}, func(addr string) {
					addr, _, _ = strings.Cut(addr, "/")
					e.call("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, pool, addr))
				}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newFakeEngine(t, lab.ServerOptions{})
			call, end := tt.prepare(e)
			held, err := call(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			end(held)
			got := make([]string, n)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					var err error
					if got[i], err = call(t.Context(), i+1); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			addrs := map[string]bool{}
			for _, addr := range got {
				addrs[addr] = true
			}
			if len(addrs) != n || !addrs[held] {
				t.Errorf("%s was held, answered %q", held, got)
			}
			if ls := e.server.Leases(); len(ls) != n {
				t.Errorf("the server holds %v", ls)
			}
		})
	}
}

// asError is what an answer says of an error.
func asError(answer map[string]any, err error) error {
	if said, ok := answer["Err"]; ok && err == nil {
		err = fmt.Errorf("%v", said)
	}
	return err
}
