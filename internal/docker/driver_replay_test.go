// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

// fakeEngine calls the plugin as engines 28 and 29 do, and moves links as they
// do, on a host with a real keeper.
type fakeEngine struct {
	t      *testing.T
	l      *lab.Lab
	h      *lab.Host
	k      *lab.Keeper
	server *lab.Server
	socket string
}

func newFakeEngine(t *testing.T, o lab.ServerOptions) *fakeEngine {
	t.Helper()
	t.Parallel()
	l := lab.New(t)
	dir, err := os.MkdirTemp("/tmp", "mvdhcp-replay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &fakeEngine{t: t, l: l, server: l.Dnsmasq(o), h: l.Host("host"), socket: filepath.Join(dir, "p.sock")}
	e.k = l.NoKeeper(e.h)
	e.k.SetArgs("--docker", "--docker-socket", e.socket)
	e.k.SetEnv("DOCKER_HOST=unix://" + filepath.Join(dir, "none.sock"))
	e.k.Start()
	return e
}

// post sends one call and returns the status and the answer.
func (e *fakeEngine) post(ctx context.Context, method, body string) (int, map[string]any, error) {
	c := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	var answer map[string]any
	if res.StatusCode == http.StatusOK && err == nil {
		err = json.Unmarshal(b, &answer)
	}
	return res.StatusCode, answer, err
}

// call sends one call and returns the answer, which must be no error.
func (e *fakeEngine) call(method, body string) map[string]any {
	e.t.Helper()
	status, answer, err := e.post(e.t.Context(), method, body)
	if err != nil || status != http.StatusOK || answer["Err"] != nil {
		e.t.Fatalf("%s: status %d, %v, %v", method, status, answer, err)
	}
	return answer
}

// refused sends a call that must be answered with an error, and returns that.
func (e *fakeEngine) refused(method, body string) string {
	e.t.Helper()
	_, answer, err := e.post(e.t.Context(), method, body)
	said, _ := answer["Err"].(string)
	if err != nil || said == "" {
		e.t.Errorf("%s %s: %v, %v", method, body, answer, err)
	}
	return said
}

const network1 = "1111111111111111111111111111111111111111111111111111111111111111"

func endpointID(n int) string { return fmt.Sprintf("e%03d%060x", n, n) }

// endpoint is the body of a call for an endpoint.
func endpoint(id, more string) string {
	return fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q%s}`, network1, id, more)
}

const emptyInterface = `,"Interface":{"Address":"","AddressIPv6":"","MacAddress":""},"Options":{"com.docker.network.endpoint.exposedports":[],"com.docker.network.portmap":[]}`

func (e *fakeEngine) createNetwork(opts string) {
	e.t.Helper()
	e.call("NetworkDriver.CreateNetwork", fmt.Sprintf(`{"NetworkID":%q,"Options":{"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{"parent":%q%s}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0","Gateway":"","AuxAddresses":null}],"IPv6Data":[]}`, network1, lab.Uplink, opts))
}

// ip runs ip(8).
func (e *fakeEngine) ip(args ...string) string {
	e.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// take moves the link into the container and sets it up, as an engine does.
func (e *fakeEngine) take(c *lab.Container, link, addr string, join map[string]any) {
	e.t.Helper()
	e.ip("-n", e.h.Name, "link", "set", link, "netns", c.Name)
	e.ip("-n", c.Name, "link", "set", link, "name", "eth0")
	e.ip("-n", c.Name, "addr", "add", addr, "dev", "eth0")
	e.ip("-n", c.Name, "link", "set", "eth0", "up")
	if routes, ok := join["StaticRoutes"].([]any); ok {
		for _, r := range routes {
			r := r.(map[string]any)
			e.ip("-n", c.Name, "route", "add", r["Destination"].(string), "via", r["NextHop"].(string))
		}
	}
	if gw, ok := join["Gateway"].(string); ok {
		e.ip("-n", c.Name, "route", "add", "default", "via", gw)
	}
}

// leave moves the link back to the host, as an engine does after Leave.
func (e *fakeEngine) leave(c *lab.Container, link string) {
	e.t.Helper()
	e.ip("-n", c.Name, "link", "set", "eth0", "down")
	e.ip("-n", c.Name, "link", "set", "eth0", "name", link)
	e.ip("-n", c.Name, "link", "set", link, "netns", e.h.Name)
}

func (e *fakeEngine) leases() (ls []api.Lease) {
	e.t.Helper()
	e.k.JSON(&ls, "leases", "--json")
	return ls
}

// bound waits until the only lease is bound in a namespace.
func (e *fakeEngine) bound() (found api.Lease) {
	e.t.Helper()
	e.l.Eventually(soon, "the lease moves in", func() bool {
		ls := e.leases()
		if len(ls) != 1 {
			return false
		}
		found = ls[0]
		return found.State == "bound" && found.Ifname == "eth0"
	})
	return found
}

// empty checks that no lease and no link is left.
func (e *fakeEngine) empty() {
	e.t.Helper()
	e.l.Eventually(soon, "no lease is left", func() bool { return len(e.leases()) == 0 })
	e.server.WaitEmpty(soon)
	for _, l := range e.h.Links() {
		if strings.HasPrefix(l.Name, "mv") {
			e.t.Errorf("link %s is left", l.Name)
		}
	}
}

func created(t *testing.T, answer map[string]any) (addr, mac string) {
	t.Helper()
	is, _ := answer["Interface"].(map[string]any)
	addr, _ = is["Address"].(string)
	mac, _ = is["MacAddress"].(string)
	if addr == "" {
		t.Fatalf("endpoint was answered with %v", answer)
	}
	return addr, mac
}

func TestDriverCalls(t *testing.T) {
	e := newFakeEngine(t, lab.ServerOptions{})
	if diff := cmp.Diff(map[string]any{"Implements": []any{"IpamDriver", "NetworkDriver"}}, e.call("Plugin.Activate", "")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": true}, e.call("NetworkDriver.GetCapabilities", "null")); diff != "" {
		t.Error(diff)
	}
	check := e.call("NetworkDriver.GwAllocCheck", `{"Options":{"com.docker.network.generic":{"parent":"up0"}}}`)
	if diff := cmp.Diff(map[string]any{"SkipIPv4": true, "SkipIPv6": true}, check); diff != "" {
		t.Error(diff)
	}
	if status, _, _ := e.post(t.Context(), "NetworkDriver.AllocateNetwork", "{}"); status != http.StatusNotFound {
		t.Errorf("a method that is not there: status %d", status)
	}
	for _, method := range []string{"CreateNetwork", "DeleteNetwork", "CreateEndpoint", "DeleteEndpoint", "Join", "EndpointOperInfo", "GwAllocCheck"} {
		for _, body := range []string{"", "{", "[]", `"x"`} {
			e.refused("NetworkDriver."+method, body)
		}
	}
	for _, method := range []string{"CreateNetwork", "CreateEndpoint", "DeleteEndpoint", "Join", "EndpointOperInfo"} {
		e.refused("NetworkDriver."+method, "{}")
	}
	if said := e.refused("NetworkDriver.CreateNetwork", `{"NetworkID":"n","Options":{"com.docker.network.enable_ipv6":true,"com.docker.network.generic":{"parent":"up0"}}}`); !strings.Contains(said, "IPv6 is not served") {
		t.Error(said)
	}
	if said := e.refused("NetworkDriver.CreateEndpoint", endpoint(endpointID(1), emptyInterface)); !strings.Contains(said, "is not known") {
		t.Error(said)
	}
	e.createNetwork("")
	for more, want := range map[string]string{
		`,"Interface":{"MacAddress":"01:02"}`:                                      "not an Ethernet address",
		`,"Interface":{"Address":"10.80.9.9"}`:                                     "not an address with its length",
		`,"Interface":{"Address":"10.80.9.9/16","MacAddress":"02:42:0:0:0:1"}`:     "",
		`,"Interface":{"Address":"10.80.9.9/16","MacAddress":"02:42:00:00:00:01"}`: "is not leased here",
		`,"Interface":{},"Options":{"ip":7}`:                                       "--driver-opt ip: give a value",
		`,"Interface":{},"Options":{"ip":"224.0.0.1"}`:                             "not a host's unicast address",
		`,"Interface":{"MacAddress":"03:00:00:00:00:01"},"Options":{}`:             "multicast",
	} {
		if said := e.refused("NetworkDriver.CreateEndpoint", endpoint(endpointID(1), more)); !strings.Contains(said, want) {
			t.Errorf("%s: %s, want %q", more, said, want)
		}
	}
	e.empty()
}

// TestDriverLife takes one endpoint through its life as engine 29 has it: the
// sandbox is there at Join.
func TestDriverLife(t *testing.T) {
	lan := lab.ServerOptions{Extra: []string{"--dhcp-option=121,0.0.0.0/0,10.80.0.1,10.99.0.0/16,10.80.0.9"}}
	e := newFakeEngine(t, lan)
	c := e.l.Container("web")
	id := endpointID(1)
	link := "mv" + id[:12]
	e.createNetwork(`,"release-delay":"1s","conflict-check":"off"`)

	// The engine repeats a call after its client's time-out, with its body or
	// without one.
	var wg sync.WaitGroup
	answers := make([]map[string]any, 4)
	for i := range answers {
		wg.Go(func() {
			_, answers[i], _ = e.post(t.Context(), "NetworkDriver.CreateEndpoint", endpoint(id, emptyInterface))
		})
	}
	wg.Wait()
	addr, mac := created(t, answers[0])
	for _, a := range answers[1:] {
		if diff := cmp.Diff(answers[0], a); diff != "" {
			t.Error("repeated call:", diff)
		}
	}
	if ls := e.server.Leases(); len(ls) != 1 || ls[0].MAC != mac || ls[0].Addr.String()+"/16" != addr {
		t.Errorf("answered %s %s, the server holds %v", addr, mac, ls)
	}
	if l, ok := e.h.Link(link); !ok || l.MAC.String() != mac || l.Up {
		t.Errorf("link on the host: %+v", l)
	}
	e.k.Kill9() // before Join
	e.k.Start()

	join := e.call("NetworkDriver.Join", endpoint(id, fmt.Sprintf(`,"SandboxKey":"/run/netns/%s","Options":{}`, c.Name)))
	want := map[string]any{
		"InterfaceName": map[string]any{"SrcName": link, "DstPrefix": "eth"}, "Gateway": "10.80.0.1",
		"StaticRoutes": []any{map[string]any{"Destination": "10.99.0.0/16", "RouteType": 0.0, "NextHop": "10.80.0.9"}},
	}
	if diff := cmp.Diff(want, join); diff != "" {
		t.Error(diff)
	}
	e.call("NetworkDriver.ProgramExternalConnectivity", endpoint(id, `,"Options":{}`))
	e.take(c, link, addr, join)
	l := e.bound()
	if l.MAC != mac || l.Address != addr {
		t.Errorf("lease %+v", l)
	}
	e.l.Eventually(soon, "the address has an end", func() bool { v := c.Addr("eth0").Valid; return v > 0 && v < lab.Forever })
	e.l.Eventually(soon, "the keeper has the classless route, the engine the default one", func() bool {
		out := e.ip("-n", c.Name, "route")
		return strings.Count(out, "default") == 1 && strings.Contains(out, "10.99.0.0/16 via 10.80.0.9 dev eth0 proto dhcp") && strings.Count(out, "10.99.0.0/16") == 1
	})
	if value, _ := e.call("NetworkDriver.EndpointOperInfo", endpoint(id, ""))["Value"].(map[string]any); value["lease"] != l.ID {
		t.Errorf("EndpointOperInfo says %v", value)
	}

	e.call("NetworkDriver.RevokeExternalConnectivity", endpoint(id, ""))
	e.call("NetworkDriver.Leave", endpoint(id, ""))
	e.leave(c, link)
	for range 2 {
		e.call("NetworkDriver.DeleteEndpoint", endpoint(id, ""))
	}
	if _, ok := e.h.Link(link); ok {
		t.Error("link is left")
	}
	if said := e.refused("NetworkDriver.Join", endpoint(id, `,"SandboxKey":"/x"`)); !strings.Contains(said, "has no lease") {
		t.Error(said)
	}
	if _, ok := e.server.Lease(mac); !ok {
		t.Error("released without a delay")
	}
	// The next endpoint within the delay is the only one held.
	again, mac2 := created(t, e.call("NetworkDriver.CreateEndpoint", endpoint(endpointID(2), emptyInterface)))
	if again != addr || mac2 != mac {
		t.Errorf("%s %s, before %s %s", again, mac2, addr, mac)
	}
	e.call("NetworkDriver.DeleteEndpoint", endpoint(endpointID(2), "")) // Join failed
	e.empty()
	e.call("NetworkDriver.DeleteNetwork", fmt.Sprintf(`{"NetworkID":%q}`, network1))
	if _, ok := e.h.Link(lab.Uplink); !ok {
		t.Error("a parent that was there before is gone")
	}
}

// TestDriverLeftBehind: what a killed engine or a keeper without its store
// leaves behind is cleared away.
func TestDriverLeftBehind(t *testing.T) {
	e := newFakeEngine(t, lab.ServerOptions{})
	e.createNetwork(`,"release-delay":"0s","timeout":"2s"`)
	id := endpointID(1)
	addr, _ := created(t, e.call("NetworkDriver.CreateEndpoint", endpoint(id, emptyInterface)))

	// The store is lost while the link is parked: nobody knows what for.
	e.k.Kill9()
	if err := os.Remove(filepath.Join(e.k.StateDir, "leases.db")); err != nil {
		t.Fatal(err)
	}
	e.k.Start()
	e.l.Eventually(soon, "the link is deleted", func() bool { _, ok := e.h.Link("mv" + id[:12]); return !ok })

	// The engine goes away in the middle of a call.
	e.createNetwork(`,"release-delay":"0s","timeout":"20s"`)
	e.server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, a, err := e.post(ctx, "NetworkDriver.CreateEndpoint", endpoint(endpointID(2), emptyInterface)); err == nil {
		t.Errorf("answered without a server: %v", a)
	}
	e.l.Eventually(soon, "no lease is left", func() bool { return len(e.leases()) == 0 })
	e.server.Start()

	// A MAC of one's own, twice: the second time it is refused.
	const own = `,"Interface":{"Address":"","MacAddress":"02:aa:bb:cc:dd:01"},"Options":{}`
	a := e.call("NetworkDriver.CreateEndpoint", endpoint(endpointID(3), own))
	if _, mac := created(t, a); mac != "" {
		t.Errorf("a MAC that was given is answered: %v", a)
	}
	if said := e.refused("NetworkDriver.CreateEndpoint", endpoint(endpointID(4), own)); !strings.Contains(said, "02:aa:bb:cc:dd:01") {
		t.Error(said)
	}
	e.call("NetworkDriver.DeleteEndpoint", endpoint(endpointID(3), ""))
	e.call("NetworkDriver.DeleteEndpoint", endpoint(endpointID(4), ""))
	e.l.Eventually(soon, "no lease is left", func() bool { return len(e.leases()) == 0 })
	if l := e.server.Leases(); len(l) > 1 || len(l) == 1 && l[0].Addr.String()+"/16" != addr { // the one whose store was lost
		t.Errorf("server holds %v", l)
	}
}

// TestDriverMany makes many endpoints at once.
func TestDriverMany(t *testing.T) {
	e := newFakeEngine(t, lab.ServerOptions{})
	e.createNetwork(`,"release-delay":"0s"`)
	const n = 20
	var wg sync.WaitGroup
	answers := make([]map[string]any, n)
	for i := range n {
		wg.Go(func() {
			_, answers[i], _ = e.post(t.Context(), "NetworkDriver.CreateEndpoint", endpoint(endpointID(i), emptyInterface))
		})
	}
	wg.Wait()
	addrs, macs := map[string]bool{}, map[string]bool{}
	for _, a := range answers {
		addr, mac := created(t, a)
		addrs[addr], macs[mac] = true, true
	}
	if len(addrs) != n || len(macs) != n || len(e.server.Leases()) != n {
		t.Errorf("%d addresses, %d MACs, %d leases at the server", len(addrs), len(macs), len(e.server.Leases()))
	}
	e.call("NetworkDriver.DeleteNetwork", fmt.Sprintf(`{"NetworkID":%q}`, network1))
	e.empty()
}

// TestDriverIPAMCalls has the IPAM plugin get the address first, as engine 29
// does: with the endpoint's name, and no gateway asked for.
func TestDriverIPAMCalls(t *testing.T) {
	e := newFakeEngine(t, lab.ServerOptions{})
	pool := e.call("IpamDriver.RequestPool", `{"AddressSpace":"mvdhcp","Pool":"","SubPool":"","Options":{"parent":"up0","release-delay":"1s"},"V6":false}`)
	e.call("NetworkDriver.CreateNetwork", fmt.Sprintf(`{"NetworkID":%q,"Options":{"com.docker.network.generic":{"parent":"up0","mtu":"1400","mode":"vepa"}},"IPv4Data":[{"AddressSpace":"mvdhcp","Pool":%q,"Gateway":"","AuxAddresses":null}],"IPv6Data":[]}`, network1, pool["Pool"]))
	c := e.l.Container("web")
	id := endpointID(1)
	link := "mv" + id[:12]
	got := e.call("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"","Options":{"com.docker.network.endpoint.macaddress":"02:42:f2:13:b3:b6","com.docker.network.endpoint.name":"web"}}`, pool["PoolID"]))
	addr := got["Address"].(string)
	for range 2 {
		if a := e.call("NetworkDriver.CreateEndpoint", endpoint(id, fmt.Sprintf(`,"Interface":{"Address":%q,"AddressIPv6":"","MacAddress":"02:42:f2:13:b3:b6"},"Options":{}`, addr))); a["Interface"] != nil {
			t.Errorf("answered %v: what IPAM said may not be answered", a)
		}
	}
	if l, ok := e.h.Link(link); !ok || l.MAC.String() != "02:42:f2:13:b3:b6" || l.MTU != 1400 {
		t.Errorf("link on the host: %+v", l)
	}
	join := e.call("NetworkDriver.Join", endpoint(id, fmt.Sprintf(`,"SandboxKey":"/run/netns/%s","Options":{}`, c.Name)))
	e.take(c, link, addr, join)
	if l := e.bound(); l.Address != addr || l.Mode != "vepa" {
		t.Errorf("lease %+v", l)
	}
	e.leave(c, link)
	e.call("NetworkDriver.DeleteEndpoint", endpoint(id, ""))
	e.call("IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, pool["PoolID"], strings.Split(addr, "/")[0]))
	e.call("NetworkDriver.DeleteNetwork", fmt.Sprintf(`{"NetworkID":%q}`, network1))
	e.call("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":%q}`, pool["PoolID"]))
	e.empty()
}
