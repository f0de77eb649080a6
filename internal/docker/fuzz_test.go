// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/lease"
	"mvdhcp/provision"
)

// noHost is a host on which nothing can be made.
type noHost struct{ lease.Host }

var errNoHost = errors.New("this host makes nothing")

func (noHost) TempNamespace() (provision.Namespace, func(), error) {
	return provision.Namespace{}, nil, errNoHost
}
func (noHost) Parent(string) (provision.Parent, error) { return provision.Parent{}, errNoHost }
func (noHost) RemoveParent(string) error               { return nil }

// noStore keeps nothing, and has the records that a keeper starts with.
type noStore struct {
	lease.Store
	records []lease.Record
}

func (s noStore) All() ([]lease.Record, error) { return s.records, nil }
func (noStore) Put(lease.Record) error         { return nil }
func (noStore) PutLater(lease.Record)          {}
func (noStore) Delete(string) error            { return nil }

// noKernel has one parent.
type noKernel struct{ Kernel }

func (noKernel) EnsureParent(name string) (provision.Parent, bool, error) {
	if name != "up0" {
		return provision.Parent{}, false, provision.ErrGone
	}
	return provision.Parent{Name: name, Up: true, Carrier: true}, false, nil
}

func (noKernel) Host() *provision.NS                                            { return nil }
func (noKernel) Children(*provision.NS, string) ([]provision.FoundChild, error) { return nil, nil }
func (noKernel) DeleteParked(string, string) error                              { return nil }

func (noHost) DeleteParked(string) error                              { return nil }
func (noHost) DeleteChild(provision.Namespace, provision.Child) error { return provision.ErrGone }
func (noHost) FindChild(_ provision.Namespace, c provision.Child) (provision.Child, error) {
	return c, provision.ErrGone
}
func (noHost) EnsureParent(string) (provision.Parent, bool, error) {
	return provision.Parent{}, false, errNoHost
}

// someNetworks remembers a few networks.
type someNetworks map[string][]byte

func (s someNetworks) PutNetwork(id string, b []byte) error {
	if len(s) > 10 {
		clear(s)
	}
	s[id] = b
	return nil
}
func (s someNetworks) DeleteNetwork(id string) error        { delete(s, id); return nil }
func (s someNetworks) Networks() (map[string][]byte, error) { return s, nil }

// newDeafPlugin is a plugin on a host without a LAN, with leases of an earlier
// keeper.
func newDeafPlugin(tb testing.TB, records ...lease.Record) *Plugin {
	clock, err := lease.NewSystemClock()
	if err != nil {
		tb.Fatal(err)
	}
	k, err := lease.New(lease.Config{Host: noHost{}, Store: noStore{records: records}, Clock: clock, MachineID: "m", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	return &Plugin{
		Keeper: k, Kernel: noKernel{}, Check: func(Options) error { return nil }, Networks: someNetworks{}, MachineID: "m", Log: slog.New(slog.DiscardHandler),
		Discover: func(context.Context, Pool) (netip.Prefix, netip.Addr, error) {
			return netip.MustParsePrefix("10.0.0.0/16"), netip.MustParseAddr("10.0.0.1"), nil
		},
	}
}

// FuzzCalls: whatever the body, a call ends, and is answered with one line of
// JSON: what was asked for, or an Error of one line.
func FuzzCalls(f *testing.F) {
	calls := []string{"Plugin.Activate", "IpamDriver.GetCapabilities", "IpamDriver.RequestPool", "IpamDriver.ReleasePool", "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress",
		"NetworkDriver.GwAllocCheck", "NetworkDriver.CreateNetwork", "NetworkDriver.DeleteNetwork", "NetworkDriver.CreateEndpoint",
		"NetworkDriver.EndpointOperInfo", "NetworkDriver.DeleteEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave"}
	f.Setenv("DOCKER_HOST", "unix:///nonexistent")
	files, err := filepath.Glob("../../testdata/docker/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var rec struct {
			Steps []struct {
				Call string
				Body json.RawMessage
			}
		}
		if err := json.Unmarshal(b, &rec); err != nil {
			f.Fatal(err)
		}
		for _, s := range rec.Steps {
			for i, c := range calls {
				if c == s.Call {
					f.Add(uint8(i), []byte(strings.NewReplacer("$PARENT", "up0", "$SUBNET", "10.0.0.0/16").Replace(string(s.Body))))
				}
			}
		}
	}
	for i, c := range calls {
		switch c {
		case "NetworkDriver.CreateNetwork":
			f.Add(uint8(i), []byte(`{"NetworkID":"n1","Options":{"com.docker.network.generic":{"parent":"up0"}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}`))
		case "NetworkDriver.CreateEndpoint", "NetworkDriver.DeleteEndpoint", "NetworkDriver.Join", "NetworkDriver.EndpointOperInfo":
			f.Add(uint8(i), []byte(`{"NetworkID":"n1","EndpointID":"e1","SandboxKey":"/run/docker/netns/0123456789ab","Interface":{"Address":"","AddressIPv6":"","MacAddress":"02:42:0a:00:00:05"},"Options":{"hostname":"web"}}`))
		}
	}
	p := newDeafPlugin(f)
	h := p.handler()
	p.driver.start(f.Context())
	pl, err := parsePool("10.0.0.0/16", map[string]string{"parent": "up0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, call uint8, body []byte) {
		body = bytes.ReplaceAll(body, []byte("$POOL"), []byte(pl.id()))
		path := "/" + calls[int(call)%len(calls)]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		out := w.Body.String()
		if w.Code != http.StatusOK || strings.Count(out, "\n") != 1 {
			t.Fatalf("%s: %d %q", path, w.Code, out)
		}
		var answer map[string]any
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("%s: %q: %v", path, out, err)
		}
		said, refused := answer["Error"].(string)
		if refused && (said == "" || strings.ContainsFunc(said, func(r rune) bool { return r < ' ' })) {
			t.Errorf("%s: Error %q", path, said)
		}
		if id, ok := answer["PoolID"].(string); ok && !refused {
			if _, err := decodePool(id); err != nil {
				t.Errorf("%s gave pool %q: %v", path, id, err)
			}
			if n := len(p.pools.all()); n > 1 {
				p.pools.set(id, p.pools.all()[id], 0)
			}
		}
	})
}

// A pool's id is the pool, and what is not a pool is refused.
func FuzzPool(f *testing.F) {
	pl, err := parsePool("10.0.0.0/16", map[string]string{"parent": "up0", "deny-server": "10.0.0.1,10.0.0.2", "release-delay": "never"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pl.id())
	f.Add("")
	f.Add("bnVsbA")
	f.Fuzz(func(t *testing.T, id string) {
		p, err := decodePool(id)
		if err != nil {
			return
		}
		again, err := decodePool(p.id())
		if err != nil || again.id() != p.id() {
			t.Errorf("%q becomes %q, then %q: %v", id, p.id(), again.id(), err)
		}
	})
}

// Host names are made of names that can't be one.
func TestHostname(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "web": "web", "my_db": "my-db", "stack_web.1.x9": "stack-web.1.x9", "-_-": "", "a..b": "a.b", "ä": "", "_web_": "web",
		strings.Repeat("x", 300): strings.Repeat("x", 63),
	} {
		if got := hostname(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

// Options are refused by name and value.
func TestParsePool(t *testing.T) {
	for _, c := range []struct {
		subnet string
		opts   map[string]string
		want   string // of the error; empty: none
	}{
		{"", map[string]string{"parent": "up0", "com.docker.network.x": "y"}, ""},
		{"10.1.2.3/16", map[string]string{"parent": "up0", "client-id": "mac", "timeout": "30s", "release-delay": "0"}, ""},
		{"", nil, "no parent"},
		{"", map[string]string{"parent": "up0", "Mode": "bridge"}, "--ipam-opt Mode is unknown"},
		{"", map[string]string{"parent": "up0", "client-id": ""}, "--ipam-opt client-id="},
		{"", map[string]string{"parent": "up0", "timeout": "0s"}, "--ipam-opt timeout=0s"},
		{"", map[string]string{"parent": "up0", "release-delay": "-1s"}, "--ipam-opt release-delay=-1s"},
		{"", map[string]string{"parent": "up0", "release-delay": "1000000h"}, "--ipam-opt release-delay=1000000h"},
		{"", map[string]string{"parent": "up0", "hostname": ""}, "--ipam-opt hostname="},
		{"10.0.0.0/31", map[string]string{"parent": "up0"}, "--subnet 10.0.0.0/31"},
	} {
		p, err := parsePool(c.subnet, c.opts)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %v: %v", c.subnet, c.opts, err)
		}
		if err == nil && c.subnet != "" && p.Subnet != netip.MustParsePrefix("10.1.0.0/16") {
			t.Errorf("%q becomes %v", c.subnet, p.Subnet)
		}
	}
}

// The file of the pools outlives a keeper; a damaged one is an empty set.
func TestPoolSet(t *testing.T) {
	pl, err := parsePool("10.0.0.0/16", map[string]string{"parent": "up0.100"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pools.json")
	open := func() *poolSet {
		s, err := openPools(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if err := errors.Join(s.add(pl.id()), s.add(pl.id())); err != nil || !s.on("up0.100") || s.on("up0") {
		t.Fatalf("%v, %v", err, s.all())
	}
	if left, err := open().drop(pl.id()); left != 1 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	s = open()
	if left, err := s.drop(pl.id()); left != 0 || err != nil || s.on("up0.100") {
		t.Errorf("%d left, %v", left, err)
	}
	if left, err := s.drop(pl.id()); left != 0 || err != nil {
		t.Errorf("%d left of none, %v", left, err)
	}
	// A count that has changed since is not corrected.
	if err := errors.Join(s.add(pl.id()), s.add(pl.id())); err != nil {
		t.Fatal(err)
	}
	if done, err := s.set(pl.id(), 1, 0); done || err != nil || s.all()[pl.id()] != 2 {
		t.Errorf("corrected %v, %v: %v", done, err, s.all())
	}
	if done, err := s.set(pl.id(), 2, 1); !done || err != nil || open().all()[pl.id()] != 1 {
		t.Errorf("corrected %v, %v: %v", done, err, open().all())
	}
	// What can't be stored was refused, and does not count.
	if s := (&poolSet{path: filepath.Join(t.TempDir(), "none", "pools.json"), count: map[string]int{}}); s.add(pl.id()) == nil || s.on("up0.100") {
		t.Errorf("counts %v", s.all())
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := openPools(path); err == nil || s.add(pl.id()) != nil || len(open().all()) != 1 {
		t.Errorf("damaged file: %v, %v", err, s.all())
	}
}
