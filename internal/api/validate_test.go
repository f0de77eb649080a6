// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAttachRequestValidate(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		name string
		set  func(*AttachRequest)
		want string // part of the message; "": valid
	}{
		{"plain", func(*AttachRequest) {}, ""},
		{"no target", func(r *AttachRequest) { r.Target = "" }, "no TARGET"},
		{"target with a space", func(r *AttachRequest) { r.Target = "a b" }, "TARGET"},
		{"target of unknown kind", func(r *AttachRequest) { r.Target = "podman:x" }, "TARGET"},
		{"no parent", func(r *AttachRequest) { r.Parent = "" }, "no --parent"},
		{"parent of 15 bytes", func(r *AttachRequest) { r.Parent = "abcdefghijklmno" }, ""},
		{"parent of 16 bytes", func(r *AttachRequest) { r.Parent = "abcdefghijklmnop" }, "15 bytes"},
		{"parent with a slash", func(r *AttachRequest) { r.Parent = "a/b" }, "slash"},
		{"parent with a space", func(r *AttachRequest) { r.Parent = "a b" }, "space"},
		{"parent .", func(r *AttachRequest) { r.Parent = "." }, "--parent"},
		{"parent ..", func(r *AttachRequest) { r.Parent = ".." }, "--parent"},
		{"parent with a NUL", func(r *AttachRequest) { r.Parent = "a\x00" }, "--parent"},
		{"VLAN 0", func(r *AttachRequest) { r.Parent = "up0.0" }, "1 to 4094"},
		{"VLAN 1", func(r *AttachRequest) { r.Parent = "up0.1" }, ""},
		{"VLAN 4094", func(r *AttachRequest) { r.Parent = "up0.4094" }, ""},
		{"VLAN 4095", func(r *AttachRequest) { r.Parent = "up0.4095" }, "1 to 4094"},
		{"VLAN without end", func(r *AttachRequest) { r.Parent = "u.9999999999999" }, "1 to 4094"},
		{"VLAN empty", func(r *AttachRequest) { r.Parent = "up0." }, "1 to 4094"},
		{"VLAN of nothing", func(r *AttachRequest) { r.Parent = ".100" }, "before the dot"},
		{"dot without a number", func(r *AttachRequest) { r.Parent = "up0.lan" }, ""},
		{"ifname of 15 bytes", func(r *AttachRequest) { r.Ifname = "abcdefghijklmno" }, ""},
		{"ifname of 16 bytes", func(r *AttachRequest) { r.Ifname = "abcdefghijklmnop" }, "15 bytes"},
		{"ifname with a slash", func(r *AttachRequest) { r.Ifname = "a/b" }, "slash"},
		{"ifname with a tab", func(r *AttachRequest) { r.Ifname = "a\tb" }, "space"},
		{"ifname ..", func(r *AttachRequest) { r.Ifname = ".." }, "--ifname"},
		{"ifname that sysctl has", func(r *AttachRequest) { r.Ifname = "default" }, "--ifname"},
		{"ifname of a pattern", func(r *AttachRequest) { r.Ifname = "eth%d" }, "percent"},
		{"mode", func(r *AttachRequest) { r.Mode = "private" }, ""},
		{"mode unknown", func(r *AttachRequest) { r.Mode = "passthru" }, "bridge, private, vepa"},
		{"identity of 128 bytes", func(r *AttachRequest) { r.Identity = long[:128] }, ""},
		{"identity of 129 bytes", func(r *AttachRequest) { r.Identity = long[:129] }, "at most 128"},
		{"identity of a space", func(r *AttachRequest) { r.Identity = " " }, "not empty"},
		{"identity of a cluster", func(r *AttachRequest) { r.Identity = "cluster:web" }, ""},
		{"identity of a cluster without a name", func(r *AttachRequest) { r.Identity = "cluster:" }, "not empty"},
		{"identity with an escape", func(r *AttachRequest) { r.Identity = "a\x1b[1m" }, "printed"},
		{"identity that is no UTF-8", func(r *AttachRequest) { r.Identity = "a\xff" }, "printed"},
		{"MAC", func(r *AttachRequest) { r.MAC = "02:00:00:00:00:01" }, ""},
		{"MAC in dots", func(r *AttachRequest) { r.MAC = "0200.0000.0001" }, ""},
		{"MAC multicast", func(r *AttachRequest) { r.MAC = "01:00:5e:00:00:01" }, "multicast"},
		{"MAC broadcast", func(r *AttachRequest) { r.MAC = "ff:ff:ff:ff:ff:ff" }, "multicast"},
		{"MAC zero", func(r *AttachRequest) { r.MAC = "00:00:00:00:00:00" }, "zero"},
		{"MAC of eight bytes", func(r *AttachRequest) { r.MAC = "02:00:00:00:00:00:00:01" }, "six bytes"},
		{"MAC malformed", func(r *AttachRequest) { r.MAC = "02:00:00:00:00" }, "six bytes"},
		{"client id text", func(r *AttachRequest) { r.ClientID = "web" }, ""},
		{"client id duid", func(r *AttachRequest) { r.ClientID = "duid" }, ""},
		{"client id hex", func(r *AttachRequest) { r.ClientID = "hex:01:aa:bb" }, ""},
		{"client id 0x", func(r *AttachRequest) { r.ClientID = "0x01aabb" }, ""},
		{"client id half a byte", func(r *AttachRequest) { r.ClientID = "hex:01a" }, "--client-id"},
		{"client id no hex", func(r *AttachRequest) { r.ClientID = "0xzz" }, "--client-id"},
		{"client id of a byte", func(r *AttachRequest) { r.ClientID = "0x01" }, "--client-id"},
		{"client id too long", func(r *AttachRequest) { r.ClientID = long }, "--client-id"},
		{"hostname", func(r *AttachRequest) { r.Hostname = "web-1.example.org" }, ""},
		{"hostname of 63 in a label", func(r *AttachRequest) { r.Hostname = long[:63] + ".a" }, ""},
		{"hostname of 64 in a label", func(r *AttachRequest) { r.Hostname = long[:64] }, "at most 63"},
		{"hostname over 255", func(r *AttachRequest) { r.Hostname = strings.Repeat("a.", 128) + "a" }, "at most 255"},
		{"hostname with an empty label", func(r *AttachRequest) { r.Hostname = "a..b" }, "--hostname"},
		{"hostname with a space", func(r *AttachRequest) { r.Hostname = "a b" }, "--hostname"},
		{"hostname with a hyphen first", func(r *AttachRequest) { r.Hostname = "-a" }, "--hostname"},
		{"hostname not ASCII", func(r *AttachRequest) { r.Hostname = "bär" }, "--hostname"},
		{"hostname and none", func(r *AttachRequest) { r.Hostname, r.NoHostname = "a", true }, "contradict"},
		{"request-ip", func(r *AttachRequest) { r.RequestIP = "10.0.0.5" }, ""},
		{"request-ip 999", func(r *AttachRequest) { r.RequestIP = "10.222.0.999" }, "--request-ip"},
		{"request-ip with a mask", func(r *AttachRequest) { r.RequestIP = "10.0.0.5/24" }, "--request-ip"},
		{"request-ip IPv6", func(r *AttachRequest) { r.RequestIP = "2001:db8::1" }, "--request-ip"},
		{"request-ip 0.0.0.0", func(r *AttachRequest) { r.RequestIP = "0.0.0.0" }, "unicast"},
		{"request-ip loopback", func(r *AttachRequest) { r.RequestIP = "127.0.0.1" }, "unicast"},
		{"request-ip multicast", func(r *AttachRequest) { r.RequestIP = "224.0.0.1" }, "unicast"},
		{"request-ip broadcast", func(r *AttachRequest) { r.RequestIP = "255.255.255.255" }, "unicast"},
		{"vendor class of 255", func(r *AttachRequest) { r.VendorClass = long[:255] }, ""},
		{"vendor class of 256", func(r *AttachRequest) { r.VendorClass = long[:256] }, "at most 255"},
		{"user class of 255", func(r *AttachRequest) { r.UserClass = long[:255] }, "at most 254"},
		{"user class with a newline", func(r *AttachRequest) { r.UserClass = "a\nb" }, "printed"},
		{"metric", func(r *AttachRequest) { r.Metric = 4294967295 }, ""},
		{"metric negative", func(r *AttachRequest) { r.Metric = -1 }, "--metric"},
		{"metric too large", func(r *AttachRequest) { r.Metric = 4294967296 }, "--metric"},
		{"routes", func(r *AttachRequest) { r.Routes = "none" }, ""},
		{"routes unknown", func(r *AttachRequest) { r.Routes = "some" }, "all, default, none"},
		{"MTU 576", func(r *AttachRequest) { r.MTU = 576 }, ""},
		{"MTU 575", func(r *AttachRequest) { r.MTU = 575 }, "--mtu"},
		{"MTU 65535", func(r *AttachRequest) { r.MTU = 65535 }, ""},
		{"MTU 65536", func(r *AttachRequest) { r.MTU = 65536 }, "--mtu"},
		{"MTU negative", func(r *AttachRequest) { r.MTU = -1 }, "--mtu"},
		{"conflict check", func(r *AttachRequest) { r.ConflictCheck = "off" }, ""},
		{"conflict check unknown", func(r *AttachRequest) { r.ConflictCheck = "maybe" }, "fast, wait, async, off"},
		{"allowed server", func(r *AttachRequest) { r.AllowServers = []string{"10.0.0.1", "10.0.0.2"} }, ""},
		{"allowed server malformed", func(r *AttachRequest) { r.AllowServers = []string{"10.0.0.1", "x"} }, "--allow-server"},
		{"denied server multicast", func(r *AttachRequest) { r.DenyServers = []string{"239.1.1.1"} }, "--deny-server"},
		{"server allowed and denied", func(r *AttachRequest) {
			r.AllowServers, r.DenyServers = []string{"10.0.0.1"}, []string{"10.0.0.1"}
		}, "both"},
		{"too many servers", func(r *AttachRequest) { r.DenyServers = make([]string, 65) }, "too many"},
		{"timeout negative", func(r *AttachRequest) { r.Timeout = -time.Second }, "--timeout"},
		{"timeout over a day", func(r *AttachRequest) { r.Timeout = 25 * time.Hour }, "--timeout"},
		{"engine", func(r *AttachRequest) { r.DockerHost = "unix:///run/docker.sock" }, ""},
		{"engine with a newline", func(r *AttachRequest) { r.DockerHost = "a\n" }, "DOCKER_HOST"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := AttachRequest{Target: "web", Parent: "up0"}
			tt.set(&r)
			wantUsage(t, r.Validate(), tt.want)
		})
	}
}

func TestOtherRequestsValidate(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"detach", (&DetachRequest{Target: "netns:a", Ifname: "eth0"}).Validate(), ""},
		{"detach without a target", (&DetachRequest{}).Validate(), "no TARGET"},
		{"detach of a long name", (&DetachRequest{Target: "a", Ifname: "abcdefghijklmnop"}).Validate(), "--ifname"},
		{"probe", (&ProbeRequest{Parent: "up0.7"}).Validate(), ""},
		{"probe without a parent", (&ProbeRequest{}).Validate(), "no --parent"},
		{"probe without a window", (&ProbeRequest{Parent: "a", Window: -1}).Validate(), "--window"},
		{"probe of an hour", (&ProbeRequest{Parent: "a", Window: time.Hour}).Validate(), "--window"},
		{"probe with a bad MAC", (&ProbeRequest{Parent: "a", MAC: "1"}).Validate(), "--mac"},
		{"query", ValidateQuery("netns:a"), ""},
		{"query with an escape", ValidateQuery("\x1b"), "printed"},
		{"query too long", ValidateQuery(strings.Repeat("a", 4097)), "at most 4096"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantUsage(t, tt.err, tt.want) })
	}
}

// wantUsage wants nil for "", else one line of CodeUsage.
func wantUsage(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeUsage {
		t.Fatalf("got %v, want an *Error of CodeUsage", err)
	}
	if !strings.Contains(e.Message, want) || strings.Contains(e.Message, "\n") || len(e.Message) > 300 {
		t.Errorf("message %q: want one line with %q", e.Message, want)
	}
}

func TestParseTarget(t *testing.T) {
	tests := map[string]Target{
		"web":                    {TargetDocker, "web"},
		"docker:web_1.a-b":       {TargetDocker, "web_1.a-b"},
		"4f0c2a":                 {TargetDocker, "4f0c2a"},
		"netns:blue":             {TargetNetNS, "blue"},
		"netns:/run/netns/b:l.u": {TargetNetNS, "/run/netns/b:l.u"},
		"pid:1":                  {TargetPID, "1"},
		"pid:4194303":            {TargetPID, "4194303"},
		"pid:2147483647":         {TargetPID, "2147483647"},
	}
	for s, want := range tests {
		got, err := ParseTarget(s)
		if err != nil {
			t.Errorf("%q refused: %v", s, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	}
	for _, s := range []string{
		"", ":", "docker:", "docker:/web", "-web", "web/", "wéb", "netns:", "netns:.", "netns:..", "netns:a/b", "netns:\x00",
		"pid:", "pid:0", "pid:-1", "pid:x", "pid:2147483648", "pid:99999999999999999999", "/run/netns/a", "x:y", strings.Repeat("a", 5000),
	} {
		if got, err := ParseTarget(s); err == nil {
			t.Errorf("%q taken for %v", shorten(s), got)
		}
	}
}
