// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/lease"
)

// TestForgetNetworks: of the networks that an earlier keeper left, those end that
// the engine says it does not have, unless they are in use or it has just told
// of them.
func TestForgetNetworks(t *testing.T) {
	e := newFakeEngine(t)
	t.Setenv("DOCKER_HOST", e.host)
	live := lease.Record{ID: "l1", State: lease.Bound, Spec: lease.Spec{Parent: "up1"}, Pool: &lease.Pool{ID: poolOf("live"), Endpoint: "e"}}
	p := newDeafPlugin(t, live)
	stored := someNetworks{}
	for _, id := range []string{"again", "gone", "live", "silent", "there"} {
		b, err := json.Marshal(Network{ID: id, Parent: "on-" + id})
		if err != nil {
			t.Fatal(err)
		}
		stored[id] = b
	}
	p.Networks = stored
	p.open()
	create := func(id string) {
		t.Helper()
		req := &networkRequest{NetworkID: id, Options: map[string]any{optGeneric: map[string]any{"parent": "up0"}}}
		if _, err := p.driver.createNetwork(t.Context(), req); err != nil {
			t.Error(err)
		}
	}
	answer := func(w http.ResponseWriter, r *http.Request) bool {
		id, ok := strings.CutPrefix(r.URL.Path, "/networks/")
		switch {
		case !ok:
			return false
		case id == "there":
			fmt.Fprintf(w, `{"Id":%q}`, id)
			return true
		case id == "silent":
			w.WriteHeader(http.StatusInternalServerError)
			return true
		case id == "again": // made in the moment in which the answer is on its way
			create(id)
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"network %s not found"}`, id)
		return true
	}
	e.answers(answer)

	ids := slices.Sorted(maps.Keys(stored))
	if diff := cmp.Diff([]string{"silent"}, p.driver.forgetRemoved(t.Context(), ids)); diff != "" {
		t.Error("asked again for", diff)
	}
	want := []string{"again", "live", "silent", "there"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(stored))); diff != "" {
		t.Error("stored", diff)
	}
	if p.ParentUsed("on-gone") || !p.ParentUsed("on-there") || !p.ParentUsed("on-silent") || !p.ParentUsed("on-live") || !p.ParentUsed("up0") {
		t.Errorf("networks are now %v", p.driver.networks)
	}
}

// TestForgetNetworksNoEngine: without an answer no network is forgotten.
func TestForgetNetworksNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent")
	p := newDeafPlugin(t)
	b, err := json.Marshal(Network{ID: "n", Parent: "up0"})
	if err != nil {
		t.Fatal(err)
	}
	p.Networks = someNetworks{"n": b}
	p.open()
	if left := p.driver.forgetRemoved(t.Context(), []string{"n"}); len(left) != 1 || !p.ParentUsed("up0") {
		t.Errorf("%v left, %v", left, p.driver.networks)
	}
}
