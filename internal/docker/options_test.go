// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"testing"
	"time"
)

// TestOptionsOfBothKinds holds the options that a pool and a network share to
// their bounds and to what is said of values out of them.
func TestOptionsOfBothKinds(t *testing.T) {
	const (
		onOff         = "give on or off"
		poolTime      = "give a duration from 1s to 10m0s, such as 10s"
		networkTime   = "give a duration of 1s or more, such as 10s"
		delay         = "give a duration such as 5s, 0s or never"
		poolIDs       = "give one of auto, mac, name, cluster, duid"
		networkIDs    = "one client identifier for all containers would give them one address: give mac, duid or identity; one of a container's own is --driver-opt client-id="
		unset         = time.Duration(-2)
		poolDelay     = 10 * 365 * 24 * time.Hour
		networkDelay  = 365 * 24 * time.Hour
		aboveOfPool   = "87600h0m0.000000001s"
		aboveOfOthers = "8760h0m0.000000001s"
	)
	for _, tt := range []struct {
		option, value string
		pool, network string // errors
	}{
		{"hostname", "on", "", ""},
		{"hostname", "off", "", ""},
		{"hostname", "web", onOff, onOff},
		{"hostname", "", onOff, onOff},
		{"timeout", "1s", "", ""},
		{"timeout", "10m", "", ""},
		{"timeout", "999ms", poolTime, networkTime},
		{"timeout", "10m1ns", poolTime, ""},
		{"timeout", "soon", poolTime, networkTime},
		{"timeout", "", poolTime, networkTime},
		{"release-delay", "0s", "", ""},
		{"release-delay", "never", "", ""},
		{"release-delay", "-1ns", delay, delay},
		{"release-delay", "", delay, delay},
		{"release-delay", networkDelay.String(), "", ""},
		{"release-delay", aboveOfOthers, "", delay},
		{"release-delay", poolDelay.String(), "", delay},
		{"release-delay", aboveOfPool, delay, delay},
		{"client-id", "web", poolIDs, networkIDs},
	} {
		opts := map[string]string{"parent": "p0", tt.option: tt.value}
		p, err := parsePool("", opts)
		holds(t, "--ipam-opt "+tt.option+"="+tt.value, err, tt.pool)
		n, err := parseNetwork(opts, false, func(Options) error { return nil })
		holds(t, "-o "+tt.option+"="+tt.value, err, tt.network)

		off, timeout, after := tt.value == "off", defaultTimeout, defaultReleaseDelay
		switch tt.option {
		case "timeout":
			timeout = parsed(tt.value, unset)
		case "release-delay":
			after = parsed(tt.value, -1)
		}
		if tt.pool == "" && (p.NoHostname != off || p.Timeout != timeout || p.ReleaseDelay != after) {
			t.Errorf("--ipam-opt %s=%s: got %+v", tt.option, tt.value, p)
		}
		if tt.network == "" && (n.NoHostname != off || n.Timeout != timeout || n.ReleaseDelay != after) {
			t.Errorf("-o %s=%s: got %+v", tt.option, tt.value, n)
		}
	}
}

// holds checks that an option was taken, or that its error says why not.
func holds(t *testing.T, option string, err error, why string) {
	t.Helper()
	switch {
	case err == nil && why != "":
		t.Errorf("%s: taken, want %q", option, why)
	case err != nil && err.Error() != option+": "+why:
		t.Errorf("got %q, want %q", err, option+": "+why)
	}
}

func parsed(v string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(v); err == nil {
		return d
	}
	return otherwise
}
