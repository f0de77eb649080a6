// SPDX-License-Identifier: Apache-2.0

package docker_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// recording is a sequence of an engine's calls.
type recording struct {
	About string
	Steps []step
}

// step is one call and what must come of it. In all its texts, words that begin
// with $ stand for what this LAN is or an earlier step saved.
type step struct {
	About  string
	Call   string
	Body   json.RawMessage   // or
	Raw    *string           // a body as it is
	Status int               // 0: 200
	Want   json.RawMessage   // members that the answer must have, and no Error
	Error  []string          // words of the Error
	Save   map[string]string // members of the answer, by the name they are kept under
	Leases *int              // what the server then holds
	// What the server knows of the lease that was answered.
	Host      *string
	Client    string // text of type 0
	ClientHex string
}

// TestEngineCalls plays recorded calls of engines to a real keeper on a LAN; the
// server's lease file judges.
func TestEngineCalls(t *testing.T) {
	files, err := filepath.Glob("../../testdata/docker/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var rec recording
			if err := json.Unmarshal(b, &rec); err != nil {
				t.Fatal(err)
			}
			l := lab.New(t)
			server := l.Dnsmasq(lab.ServerOptions{})
			h := l.Host("host")
			socket := filepath.Join(l.Dir(), "plugin.sock")
			k := l.NoKeeper(h)
			k.SetEnv("DOCKER_HOST=unix://" + filepath.Join(l.Dir(), "no-engine.sock"))
			k.SetArgs("--docker", "--docker-socket", socket)
			k.Start()
			p := &player{
				server: server, caller: newCaller(t, socket),
				words: map[string]string{
					"$PARENT": lab.Uplink, "$SUBNET": l.LAN("lan").Subnet.String(), "$ROUTER": netip.PrefixFrom(server.Addr, 16).String(),
					"$GATEWAY": server.Addr.String(), "$OTHER": l.LAN("lan").Addr(250).String(),
				},
			}
			for i, s := range rec.Steps {
				p.play(t, fmt.Sprintf("step %d, %s: %s", i+1, s.Call, s.About), s)
			}
			if links := h.Links(); len(links) != 1 {
				t.Errorf("links left in the host's namespace: %+v", links)
			}
		})
	}
}

type player struct {
	server *lab.Server
	caller *caller
	words  map[string]string
}

func (p *player) expand(s string) string {
	for name, v := range p.words {
		s = strings.ReplaceAll(s, name, v)
	}
	return s
}

func (p *player) play(t *testing.T, what string, s step) {
	t.Helper()
	body := []byte(p.expand(string(s.Body)))
	if s.Raw != nil {
		body = []byte(*s.Raw)
	}
	status, got := p.caller.post(t, s.Call, body)
	if want := max(s.Status, 0); want != 0 && status != want || want == 0 && status != http.StatusOK {
		t.Fatalf("%s: status %d", what, status)
	}
	said, _ := got["Error"].(string)
	if (said != "") != (s.Error != nil) {
		t.Fatalf("%s: %v", what, got)
	}
	for _, w := range s.Error {
		if !strings.Contains(said, p.expand(w)) || strings.ContainsFunc(said, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%s: no %q in %q", what, p.expand(w), said)
		}
	}
	var want map[string]any
	if s.Want != nil {
		if err := json.Unmarshal([]byte(p.expand(string(s.Want))), &want); err != nil {
			t.Fatal(err)
		}
	}
	for name, w := range want {
		g := got[name]
		// Addresses are saved without their length and compared so.
		if gs, ok := g.(string); ok && name == "Address" && !strings.Contains(w.(string), "/") {
			g, _, _ = strings.Cut(gs, "/")
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%s: %s is %v, want %v", what, name, g, w)
		}
	}
	for word, name := range s.Save {
		v, _ := got[name].(string)
		if name == "Address" {
			v, _, _ = strings.Cut(v, "/")
		}
		if v == "" {
			t.Fatalf("%s: no %s in %v", what, name, got)
		}
		p.words[word] = v
	}
	if s.Leases != nil {
		p.server.WaitLeases(soon, fmt.Sprintf("%s: %d leases", what, *s.Leases), func(ls []lab.ServerLease) bool { return len(ls) == *s.Leases })
	}
	p.known(t, what, s, got)
}

// known compares the server's knowledge of the lease that was answered.
func (p *player) known(t *testing.T, what string, s step, got map[string]any) {
	t.Helper()
	if s.Host == nil && s.Client == "" && s.ClientHex == "" {
		return
	}
	addr, _ := got["Address"].(string)
	addr, _, _ = strings.Cut(addr, "/")
	for _, l := range p.server.Leases() {
		if l.Addr.String() != addr {
			continue
		}
		if s.Host != nil && l.Hostname != *s.Host {
			t.Errorf("%s: the server knows it as %q", what, l.Hostname)
		}
		if s.Client != "" && l.ClientID != "00"+hex.EncodeToString([]byte(p.expand(s.Client))) || s.ClientHex != "" && l.ClientID != s.ClientHex {
			t.Errorf("%s: client identifier %s", what, l.ClientID)
		}
		return
	}
	t.Errorf("%s: the server does not hold %s: %v", what, addr, p.server.Leases())
}
