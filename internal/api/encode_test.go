// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"testing"
	"time"
)

// TestLeaseFields: every field of the contract is there whatever a lease has, a
// time that there is none of as null.
func TestLeaseFields(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	for name, l := range map[string]Lease{
		"no address": {ID: "1", State: "selecting"},
		"for ever":   {ID: "2", State: "bound", LeaseSeconds: 4294967295, BoundAt: Time{at}},
		"bound":      {ID: "3", State: "bound", LeaseSeconds: 60, BoundAt: Time{at}, RenewAt: Time{at}, RebindAt: Time{at}, ExpiresAt: Time{at}},
	} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{
			"id", "identity", "state", "target", "netns", "ifname", "parent", "mac", "client_id", "hostname", "address", "gateway", "routes", "dns", "domain", "search", "ntp",
			"mtu", "server", "lease_seconds", "bound_at", "renew_at", "rebind_at", "expires_at", "renewals", "last_error",
		} {
			if _, ok := fields[f]; !ok {
				t.Errorf("%s: no %q in %s", name, f, text)
			}
		}
		for f, when := range map[string]Time{"bound_at": l.BoundAt, "renew_at": l.RenewAt, "rebind_at": l.RebindAt, "expires_at": l.ExpiresAt} {
			var want any
			if !when.IsZero() {
				want = "2026-03-01T12:00:00.000000005Z"
			}
			if fields[f] != want {
				t.Errorf("%s: %q is %v, want %v", name, f, fields[f], want)
			}
		}
		var back Lease
		if err := json.Unmarshal(text, &back); err != nil || !back.RenewAt.Equal(l.RenewAt.Time) || !back.BoundAt.Equal(l.BoundAt.Time) {
			t.Errorf("%s: %+v came back: %v", name, back, err)
		}
	}
	var older Lease // of a keeper that leaves out what there is none of
	if err := json.Unmarshal([]byte(`{"id":"4"}`), &older); err != nil || !older.ExpiresAt.IsZero() {
		t.Errorf("%+v: %v", older, err)
	}
}
