// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzAttachRequest holds that a body is refused with a usage error or is what
// the keeper can rely on, and that what is sent of it reads the same again.
func FuzzAttachRequest(f *testing.F) {
	for _, s := range []string{
		`{"target":"web","parent":"up0"}`,
		`{"target":"netns:a","parent":"up0.100","ifname":"eth1","mac":"02:00:00:00:00:01","client_id":"0x0102","metric":7,"mtu":1400}`,
		`{"target":"pid:7","parent":"up0","request_ip":"10.0.0.5","allow_servers":["10.0.0.1"],"timeout":4000000000,"hostname":"a.b"}`,
		`{"target":"x","parent":"..","identity":"\u001b"}`, `{"target":1}`, `{"unknown":1}`, `[]`, `{`, ``, `null`, `{}{}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r AttachRequest
		err := decode(bytes.NewReader(body), &r)
		if err == nil {
			err = r.Validate()
		}
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeUsage {
				t.Fatalf("%q: %v is no usage error", body, err)
			}
			return
		}
		holds(t, r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again AttachRequest
		if err := decode(bytes.NewReader(b), &again); err != nil {
			t.Fatalf("%s is refused when sent: %v", b, err)
		}
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s reads otherwise (-before +after):\n%s", b, diff)
		}
	})
}

func holds(t *testing.T, r AttachRequest) {
	if _, err := ParseTarget(r.Target); err != nil {
		t.Errorf("target %q: %v", r.Target, err)
	}
	if len(r.Parent) > 15 || r.Parent == "" || len(r.Ifname) > 15 {
		t.Errorf("parent %q, ifname %q", r.Parent, r.Ifname)
	}
	if mac, err := net.ParseMAC(r.MAC); r.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0) {
		t.Errorf("MAC %q", r.MAC)
	}
	if a, err := netip.ParseAddr(r.RequestIP); r.RequestIP != "" && (err != nil || !a.Is4() || a.IsMulticast()) {
		t.Errorf("request-ip %q", r.RequestIP)
	}
	if r.Metric < 0 || r.Timeout < 0 || r.MTU != 0 && (r.MTU < MinMTU || r.MTU > MaxMTU) {
		t.Errorf("metric %d, timeout %v, MTU %d", r.Metric, r.Timeout, r.MTU)
	}
	if len(r.Identity) > maxIdentity || len(r.Hostname) > 255 || len(r.VendorClass) > 255 || len(r.UserClass) > 254 {
		t.Errorf("too long: %+v", r)
	}
}
