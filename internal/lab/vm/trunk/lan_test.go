// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nic is the host's link, a trunk that carries VLANs 100 and 101 with tags.
const nic = "trunk"

// network is the address range of each VLAN. Its first address is the server's.
var network = map[int]netip.Prefix{
	100: netip.MustParsePrefix("172.10.100.0/24"),
	101: netip.MustParsePrefix("172.10.101.0/24"),
}

// lan is a host's trunk, the switch at its other end and a server on each VLAN.
type lan struct {
	t       *testing.T
	servers map[int]*server
}

// newLAN builds the LAN, which goes with the test.
func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{t: t, servers: map[int]*server{}}
	l.namespace("switch")
	ip(t, "link add "+nic+" type veth peer name trunk netns switch")
	t.Cleanup(func() { ip(t, "link del "+nic) })
	ip(t, "link set "+nic+" up")
	ip(t, "-n switch link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0")
	ip(t, "-n switch link set br0 up")
	ip(t, "-n switch link set trunk master br0 up")
	for _, vid := range []int{100, 101} {
		command(t, "bridge", fmt.Sprintf("-n switch vlan add dev trunk vid %d", vid))
		l.servers[vid] = l.serve(vid)
	}
	return l
}

// serve puts a DHCP server on an access port of the switch.
func (l *lan) serve(vid int) *server {
	l.t.Helper()
	ns := fmt.Sprintf("server%d", vid)
	port := fmt.Sprintf("access%d", vid)
	l.namespace(ns)
	ip(l.t, fmt.Sprintf("-n switch link add %s type veth peer name lan0 netns %s", port, ns))
	ip(l.t, fmt.Sprintf("-n switch link set %s master br0 up", port))
	command(l.t, "bridge", fmt.Sprintf("-n switch vlan add dev %s vid %d pvid untagged", port, vid))
	own := netip.PrefixFrom(network[vid].Addr().Next(), network[vid].Bits())
	ip(l.t, fmt.Sprintf("-n %s addr add %s dev lan0", ns, own))
	ip(l.t, fmt.Sprintf("-n %s link set lan0 up", ns))
	return startServer(l.t, ns, network[vid])
}

// namespace makes a network namespace with a loopback, which goes with the test.
func (l *lan) namespace(name string) {
	l.t.Helper()
	ip(l.t, "netns add "+name)
	l.t.Cleanup(func() {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			ip(l.t, "netns del "+name)
		}
	})
	ip(l.t, "-n "+name+" link set lo up")
}

// link is what the kernel says about a link.
type link struct {
	Name  string   `json:"ifname"`
	Link  string   `json:"link"`
	MAC   string   `json:"address"`
	Alias string   `json:"ifalias"`
	Flags []string `json:"flags"`
	Info  struct {
		Kind string `json:"info_kind"`
		Data struct {
			ID   int    `json:"id"`
			Mode string `json:"mode"`
		} `json:"info_data"`
	} `json:"linkinfo"`
	Addresses []struct {
		Family string `json:"family"`
		Local  string `json:"local"`
		Bits   int    `json:"prefixlen"`
	} `json:"addr_info"`
}

// links lists the links of a namespace, "" being the host's.
func links(t *testing.T, ns string) map[string]link {
	t.Helper()
	args := []string{"-j", "-d", "addr", "show"}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	out, err := exec.Command("ip", args...).Output()
	if err != nil {
		t.Fatalf("ip %v: %v", args, err)
	}
	var list []link
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatalf("ip %v: %v", args, err)
	}
	byName := map[string]link{}
	for _, l := range list {
		byName[l.Name] = l
	}
	return byName
}

func ip(t *testing.T, args string) string {
	t.Helper()
	return command(t, "ip", args)
}

// command runs a program with arguments that have no spaces in them.
func command(t *testing.T, name, args string) string {
	t.Helper()
	out, err := exec.Command(name, strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, args, err, bytes.TrimSpace(out))
	}
	return string(out)
}

// loaded says whether a module is in the kernel.
func loaded(module string) bool {
	_, err := os.Stat(filepath.Join("/sys/module", module))
	return err == nil
}
