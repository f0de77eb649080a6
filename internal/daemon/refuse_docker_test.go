// SPDX-License-Identifier: Apache-2.0

package daemon_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"mvdhcp/internal/lab"
)

// fakeEngine answers the engine's API on a socket: each container's answer is a
// status and a body; 0 is none at all.
func fakeEngine(t *testing.T, socket string, containers map[string]fakeAnswer) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/json") {
			return // _ping
		}
		a, ok := containers[path.Base(path.Dir(r.URL.Path))]
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such container: %s"}`, path.Base(path.Dir(r.URL.Path)))
		case a.status == 0:
			<-stop
		default:
			w.WriteHeader(a.status)
			fmt.Fprintln(w, a.body)
		}
	})}
	go srv.Serve(l)
	t.Cleanup(func() { close(stop); srv.Close() })
}

type fakeAnswer struct {
	status int
	body   string
}

// TestBadContainers attaches containers that the engine can't name, doesn't have
// or that don't run: one line, status 1, and nothing left behind. The engine's
// answers are those of moby's API.
func TestBadContainers(t *testing.T) {
	s := newSite(t)
	server := s.Dnsmasq(lab.ServerOptions{})
	socket := filepath.Join(s.Dir(), "engine")
	const id = "4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2e4f66"
	fakeEngine(t, socket, map[string]fakeAnswer{
		"4f":      {http.StatusBadRequest, `{"message":"Multiple IDs found with provided prefix: 4f"}`},
		"4f6":     {http.StatusInternalServerError, `{"message":"multiple IDs found with provided prefix: 4f6"}`}, // engines before 23
		"dying":   {http.StatusConflict, `{"message":"container dying is marked for removal"}`},
		"stopped": {http.StatusOK, `{"Id":"` + id + `","Name":"/stopped","State":{"Status":"exited","Running":false,"Pid":0},"Config":{"Hostname":"x"},"HostConfig":{"NetworkMode":"none"}}`},
		"host":    {http.StatusOK, fmt.Sprintf(`{"Id":"`+id+`","Name":"/host","State":{"Status":"running","Running":true,"Pid":%d},"Config":{},"HostConfig":{"NetworkMode":"host"}}`, os.Getpid())},
		"gone":    {http.StatusOK, `{"Id":"` + id + `","Name":"/gone","State":{"Status":"running","Running":true,"Pid":4194303},"Config":{},"HostConfig":{"NetworkMode":"none"}}`},
		"garbled": {http.StatusOK, `{"Id":17,`},
		"lines":   {http.StatusInternalServerError, `{"message":"it\nfailed\u001b[31m"}`},
		"silent":  {},
	})
	links := len(s.h.Links())
	for name, tc := range map[string]struct{ host, target, says string }{
		"ambiguous prefix":             {socket, "4f", "container 4f: .*[Mm]ultiple IDs"},
		"ambiguous prefix, old engine": {socket, "docker:4f6", "container 4f6: .*multiple IDs"},
		"no such container":            {socket, "nobody", "container nobody: .*No such container"},
		"being removed":                {socket, "dying", "marked for removal"},
		"stopped":                      {socket, "stopped", "container stopped is not running: start it"},
		"on the host's network":        {socket, "host", "container host runs in the host's own network"},
		"ended in the moment":          {socket, "gone", "no such target docker:gone"},
		"garbled":                      {socket, "garbled", "container garbled: "},
		"an answer of several lines":   {socket, "lines", "it.*failed"},
		"the engine hangs":             {socket, "silent", "container silent: "},
		"no engine":                    {socket + "-none", "web", "container web: "},
	} {
		r := s.h.Mvdhcp([]string{"DOCKER_HOST=unix://" + tc.host}, "--socket", s.k.Socket, "attach", tc.target, "--parent", lab.Uplink)
		refused(t, name, r, 1, tc.says)
	}
	if got := server.Leases(); len(got) != 0 {
		t.Errorf("leases left at the server: %+v", got)
	}
	if got := s.leases("--all"); len(got) != 0 {
		t.Errorf("records left behind: %+v", got)
	}
	if got := s.h.Links(); len(got) != links {
		t.Errorf("links left behind: %+v", got)
	}
}
