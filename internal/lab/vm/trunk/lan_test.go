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
	"sync"
	"testing"
)

// nic is the host's link, a trunk that carries VLANs 100 and 101 with tags.
const nic = "ens192"

// vids are the VLANs of the LAN.
var vids = []int{100, 101}

// network is the address range of each VLAN. Its first address is that of the
// router, which is the DHCP server too.
var network = map[int]netip.Prefix{
	100: netip.MustParsePrefix("172.10.100.0/24"),
	101: netip.MustParsePrefix("172.10.101.0/24"),
}

// lan is a host's trunk, the switch at its other end and a server on each VLAN.
// All tests of one machine share it; lan is one test's view of it.
type lan struct {
	t       *testing.T
	servers map[int]*server
}

var theLAN struct {
	once   sync.Once
	logs   map[int]*serverLog
	leases string // directory of the servers' lease files
}

// newLAN gives a test the LAN, which the first one builds and which lasts as long
// as the machine. What the servers log meanwhile is shown when the test fails.
func newLAN(t *testing.T) *lan {
	t.Helper()
	return newLANIn(t, "/run")
}

// newLANIn is newLAN with the servers' lease files in a directory.
func newLANIn(t *testing.T, dir string) *lan {
	t.Helper()
	theLAN.once.Do(func() { buildLAN(t, dir) })
	if theLAN.logs == nil {
		t.Fatal("there is no LAN: see why the first test failed")
	}
	l := &lan{t: t, servers: map[int]*server{}}
	for _, vid := range vids {
		l.servers[vid] = &server{t: t, pid: theLAN.logs[vid].pid, leases: leaseFile(vid)}
		begin := theLAN.logs[vid].len()
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("server%d:\n%s", vid, theLAN.logs[vid].from(begin))
			}
		})
	}
	return l
}

// buildLAN makes the links. The routers of the VLANs know of each other only
// while a test has called route.
func buildLAN(t *testing.T, dir string) {
	t.Helper()
	logs := map[int]*serverLog{}
	host := []string{
		"netns add switch",
		"link add " + nic + " type veth peer name trunk netns switch",
		"addr add 10.0.0.206/24 dev " + nic,
		"link set " + nic + " up",
	}
	inSwitch := []string{
		"link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0",
		"link set br0 up",
		"link set trunk master br0 up",
	}
	vlans := []string{}
	for _, vid := range vids {
		host = append(host, fmt.Sprintf("netns add server%d", vid))
		inSwitch = append(inSwitch,
			// A server has its MAC after a reboot of its clients' host as well.
			fmt.Sprintf("link add access%d type veth peer name lan0 address 02:00:00:00:ff:%02x netns server%d", vid, vid, vid),
			fmt.Sprintf("link set access%d master br0 up", vid))
		vlans = append(vlans,
			fmt.Sprintf("vlan add dev trunk vid %d", vid),
			fmt.Sprintf("vlan add dev access%d vid %d pvid untagged", vid, vid))
	}
	batch(t, "", host...)
	batch(t, "switch", inSwitch...)
	runBatch(t, "bridge", "switch", vlans)
	batch(t, "server100", "link add transit type veth peer name transit netns server101")
	for i, vid := range vids {
		ns := fmt.Sprintf("server%d", vid)
		batch(t, ns,
			"link set lo up",
			fmt.Sprintf("addr add %v dev lan0", netip.PrefixFrom(router(vid), network[vid].Bits())),
			"link set lan0 up",
			fmt.Sprintf("addr add 192.0.2.%d/30 dev transit", i+1),
			"link set transit up")
		theLAN.leases = dir
		logs[vid] = startServer(t, ns, vid)
	}
	theLAN.logs = logs
}

// router is the first address of a VLAN's network.
func router(vid int) netip.Addr { return network[vid].Addr().Next() }

// route makes the VLANs reach each other through their routers until the test
// ends.
func (l *lan) route() {
	l.t.Helper()
	for i, vid := range vids {
		other := vids[1-i]
		ns := fmt.Sprintf("server%d", vid)
		command(l.t, "ip", "netns exec "+ns+" busybox sysctl -q -w net.ipv4.ip_forward=1")
		batch(l.t, ns, fmt.Sprintf("route add %v via 192.0.2.%d", network[other], 2-i))
		l.t.Cleanup(func() {
			batch(l.t, ns, fmt.Sprintf("route del %v", network[other]))
			command(l.t, "ip", "netns exec "+ns+" busybox sysctl -q -w net.ipv4.ip_forward=0")
		})
	}
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

// vlan makes a VLAN link on the trunk by hand, which goes with the test.
func (l *lan) vlan(name string, vid int) {
	l.t.Helper()
	ip(l.t, fmt.Sprintf("link add link %s name %s type vlan id %d", nic, name, vid))
	l.t.Cleanup(func() {
		if _, there := links(l.t, "")[name]; there {
			ip(l.t, "link del "+name)
		}
	})
}

// link is what the kernel says about a link.
type link struct {
	Index  int      `json:"ifindex"`
	Name   string   `json:"ifname"`
	Link   string   `json:"link"`
	MAC    string   `json:"address"`
	MTU    int      `json:"mtu"`
	Alias  string   `json:"ifalias"`
	Flags  []string `json:"flags"`
	Bus    string   `json:"parentbus"` // that its device is on, with Device's name
	Device string   `json:"parentdev"`
	Info   struct {
		Kind string `json:"info_kind"`
		Data struct {
			ID       int    `json:"id"`
			Protocol string `json:"protocol"`
			Mode     string `json:"mode"`
		} `json:"info_data"`
	} `json:"linkinfo"`
	Addresses []struct {
		Family string `json:"family"`
		Local  string `json:"local"`
		Bits   int    `json:"prefixlen"`
	} `json:"addr_info"`
}

// ipv4 are the link's IPv4 addresses.
func (l link) ipv4() (all []string) {
	for _, a := range l.Addresses {
		if a.Family == "inet" {
			all = append(all, a.Local)
		}
	}
	return all
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

// batch runs commands of ip in a namespace, "" being the host's, by one process.
func batch(t *testing.T, ns string, lines ...string) {
	t.Helper()
	runBatch(t, "ip", ns, lines)
}

func runBatch(t *testing.T, program, ns string, lines []string) {
	t.Helper()
	args := []string{"-batch", "-"}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s in %q: %v: %s; of\n%s", program, ns, err, bytes.TrimSpace(out), strings.Join(lines, "\n"))
	}
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
