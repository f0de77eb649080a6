// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDriverReload: a NIC's driver lets go of the device under leases, so that the
// NIC, the VLANs on it and the children on those vanish, and takes it up again. The
// children come back with their MACs, addresses and leases, as soon as their
// parents are there or can be made, also when the keeper is another one by then.
func TestDriverReload(t *testing.T) {
	for _, c := range []struct {
		test    string
		parents map[string]string // of each namespace
		port    []string          // VLANs of the switch's port
		remake  []string          // what the host does about a NIC that has come
		kill    bool
	}{
		{
			"left to the keeper", map[string]string{"a": "ens224", "b": "ens224.101"},
			[]string{"vlan add dev uplink vid 100 pvid untagged", "vlan add dev uplink vid 101"},
			nil, false,
		},
		{
			"set up by the host, the keeper killed meanwhile", map[string]string{"a": "vlan100", "b": "ens224.101"},
			[]string{"vlan add dev uplink vid 100", "vlan add dev uplink vid 101"},
			[]string{"link set ens224 up", "link add link ens224 name vlan100 type vlan id 100", "link set vlan100 up"}, true,
		},
	} {
		t.Run(c.test, func(t *testing.T) {
			l, k := newLAN(t), newKeeper(t)
			device := plug(t)
			runBatch(t, "bridge", "switch", c.port)
			if c.remake != nil {
				batch(t, "", c.remake...)
			}
			vid := map[string]int{"a": 100, "b": 101}
			before, held, asked := map[string]lease{}, map[int][]string{}, map[int]int{}
			for ns, parent := range c.parents {
				l.namespace(ns)
				before[ns] = k.attach(ns, parent)
			}
			madeOn(t, "ens224", "ens224.101", 101)
			wires := map[string]*frames{"a": capture(t, "server100"), "b": capture(t, "server101")}
			for _, vid := range vids {
				held[vid], asked[vid] = l.servers[vid].held(), theLAN.logs[vid].len()
			}

			driver(t, "unbind", device)
			absent(t, "ens224")
			bare(t, "a")
			bare(t, "b")
			if c.kill {
				k.stop(syscall.SIGKILL)
				k.start()
			}
			k.await("the leases wait", func(all []lease) bool { return len(all) == 2 && waiting(all) == 2 })
			driver(t, "bind", device)
			appear(t, device, "ens224")
			batch(t, "", c.remake...)
			start := time.Now()
			k.await("the leases are bound again", func(all []lease) bool { return len(all) == 2 && bound(all) })
			t.Logf("back %.1f s after the NIC", time.Since(start).Seconds())

			for ns, was := range before {
				l.granted(ns, vid[ns], was)
				wires[ns].verified(was.MAC, was.Address)
			}
			madeOn(t, "ens224", "ens224.101", 101)
			for _, vid := range vids {
				if now := l.servers[vid].held(); !slices.Equal(now, held[vid]) {
					t.Errorf("the server of VLAN %d holds %v, held %v", vid, now, held[vid])
				}
				if said := theLAN.logs[vid].from(asked[vid]); strings.Contains(said, "DHCPDISCOVER") || strings.Contains(said, "DHCPRELEASE") {
					t.Errorf("the server of VLAN %d got more than requests for what it had granted:\n%s", vid, said)
				}
			}
			for ns, was := range before {
				k.detach(ns)
				l.servers[vid[ns]].freed(was.MAC)
			}
			absent(t, "ens224.101")
		})
	}
}

// plug loads the driver of the machine's NICs and joins one, as uplink, to the
// switch. The other, at the other end of the cable, is ens224, whose device on the
// virtio bus is returned.
func plug(t *testing.T) (device string) {
	t.Helper()
	command(t, "modprobe", "virtio_net")
	t.Cleanup(func() { unload(t, "virtio_net") })
	ends := map[string]string{"52:54:00:00:00:01": "", "52:54:00:00:00:02": ""}
	for mac := range ends {
		await(t, "a NIC with MAC "+mac, func() bool {
			for _, l := range links(t, "") {
				if l.Bus == "virtio" && l.MAC == mac {
					ends[mac] = l.Device
				}
			}
			return ends[mac] != ""
		})
	}
	appear(t, ends["52:54:00:00:00:01"], "ens224")
	appear(t, ends["52:54:00:00:00:02"], "uplink")
	ip(t, "link set uplink netns switch")
	batch(t, "switch", "link set uplink master br0 up")
	return ends["52:54:00:00:00:01"]
}

// appear waits for the link of a device and gives it its name, as udev does.
func appear(t *testing.T, device, name string) {
	t.Helper()
	await(t, "a link of "+device, func() bool {
		for was, l := range links(t, "") {
			if l.Bus == "virtio" && l.Device == device {
				ip(t, "link set "+was+" name "+name)
				return true
			}
		}
		return false
	})
}

// driver has the driver of the NICs let go of a device, or take it up.
func driver(t *testing.T, do, device string) {
	t.Helper()
	if err := os.WriteFile("/sys/bus/virtio/drivers/virtio_net/"+do, []byte(device), 0); err != nil {
		t.Fatal(err)
	}
}
