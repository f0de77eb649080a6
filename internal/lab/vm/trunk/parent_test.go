// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestBareNIC: the NIC itself is a parent, on the VLAN that the switch has
// untagged at its port.
func TestBareNIC(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	runBatch(t, "bridge", "switch", []string{"vlan add dev trunk vid 100 pvid untagged"})
	t.Cleanup(func() { runBatch(t, "bridge", "switch", []string{"vlan add dev trunk vid 100"}) })
	l.namespace("a")
	a := k.attach("a", nic)
	l.granted("a", 100, a)
	k.detach("a")
	l.servers[100].freed(a.MAC)
	if got := links(t, "")[nic]; !slices.Contains(got.Flags, "UP") || got.Alias != "" {
		t.Errorf("%s has flags %v and alias %q after detach, want it as it was", nic, got.Flags, got.Alias)
	}
}

// TestMTU: a child has its parent's MTU, unless the server (option 26) or --mtu
// says less.
func TestMTU(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	ip(t, "link set "+nic+" mtu 1450")
	t.Cleanup(func() { ip(t, "link set "+nic+" mtu 1500") })
	for _, c := range []struct {
		ns   string
		args []string
		want int
	}{
		{"a", nil, 1450},
		{"b", []string{"--mtu", "1400"}, 1400},
		{"c", []string{"--user-class", "small"}, 1300}, // the server's answer to that class
	} {
		l.namespace(c.ns)
		a := k.do(append([]string{"attach", "netns:" + c.ns, "--parent", "ens192.100"}, c.args...)...)
		if a.status != 0 {
			t.Fatalf("attach of %s: status %d: %s", c.ns, a.status, a.stderr)
		}
		if got := links(t, c.ns)["eth0"].MTU; got != c.want {
			t.Errorf("%s has MTU %d, want %d", c.ns, got, c.want)
		}
	}
	if got := links(t, "")["ens192.100"].MTU; got != 1450 {
		t.Errorf("the parent has MTU %d, want its trunk's", got)
	}
	for _, ns := range []string{"a", "b", "c"} {
		k.detach(ns)
	}
	absent(t, "ens192.100")
}

// TestOtherName: a VLAN link of another name is followed by that name through a
// restart of the keeper, a loss of its carrier and the end of a namespace.
func TestOtherName(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.vlan("vlan100", 100)
	l.namespace("a")
	l.namespace("b")
	a, b := k.attach("a", "ens192.100"), k.attach("b", "ens192.100")
	k.stop(syscall.SIGKILL)
	k.start()
	if got := k.do("renew", "a"); got.status != 0 {
		t.Errorf("renew after a restart: status %d: %s", got.status, got.stderr)
	}
	asked := theLAN.logs[100].len()
	ip(t, "link set vlan100 down")
	k.await("both leases wait", func(all []lease) bool { return waiting(all) == 2 })
	ip(t, "link set vlan100 up")
	k.await("none waits", func(all []lease) bool { return waiting(all) == 0 })
	theLAN.logs[100].await(t, asked, "DHCPACK(lan0) "+strings.TrimSuffix(a.Address, "/24")+" "+a.MAC)
	ip(t, "netns del a")
	l.servers[100].freed(a.MAC)
	l.granted("b", 100, b)
	k.detach("b")
	l.servers[100].freed(b.MAC)
	if _, there := links(t, "")["vlan100"]; !there {
		t.Error("vlan100 is gone, which was there before")
	}
}

// TestShared: two leases, a restart of the keeper in between, and the one that
// made the parent ends first.
func TestShared(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	l.namespace("b")
	a := k.attach("a", "ens192.100")
	k.stop(syscall.SIGKILL)
	k.start()
	b := k.attach("b", "ens192.100")
	k.detach("a")
	l.servers[100].freed(a.MAC)
	k.stop(syscall.SIGKILL)
	k.start()
	made(t, "ens192.100", 100)
	l.granted("b", 100, b)
	k.detach("b")
	l.servers[100].freed(b.MAC)
	absent(t, "ens192.100")
}

// TestStacked: what can be told of names that are not IF.VID of a plain NIC.
func TestStacked(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	l.namespace("a")
	ip(t, "link add dum type dummy")
	ip(t, "link add ens192.300 link dum type macvlan mode bridge")
	ip(t, "link add ens192.400 link "+nic+" type vlan id 401")
	t.Cleanup(func() {
		for _, name := range []string{"ens192.300", "ens192.400", "dum"} {
			ip(t, "link del "+name)
		}
	})
	before := names(t)
	for _, c := range []struct {
		parent string
		status int
		says   string
	}{
		{"ens192.300", 1, "a macvlan link on dum, not VLAN 300 on ens192"},
		{"ens192.400", 1, "a link for VLAN 401 on ens192, not VLAN 400 on ens192"},
		{"a-long-name.1000", 2, "15"},
		{"ens192.100.200", 1, "there is no interface ens192.100 to make VLAN 200 on"},
		{"ens192.0", 2, "4094"},
		{"ens192.100.0", 2, "4094"},
		{"ens192.100.5000", 2, "4094"},
	} {
		got := k.do("attach", "netns:a", "--parent", c.parent, "--timeout", "3s")
		if got.status != c.status || !strings.Contains(got.stderr, c.says) || strings.Contains(got.stderr, "\n") {
			t.Errorf("attach to %s: status %d, %q; want %d and one line with %q", c.parent, got.status, got.stderr, c.status, c.says)
		}
		bare(t, "a")
	}
	if after := names(t); !slices.Equal(before, after) {
		t.Errorf("the host had the links %v, and has %v", before, after)
	}

	t.Run("QinQ", func(t *testing.T) {
		// Tag 100 outside, made by hand, and tag 200 inside, made for the attach.
		l := &lan{t: t}
		l.vlan("ens192.100", 100)
		batch(t, "server100", "link add link lan0 name lan0.200 type vlan id 200", "link set lan0.200 up")
		defer batch(t, "server100", "link del lan0.200")
		seen := capture(t, "server100")
		got := k.do("attach", "netns:a", "--parent", "ens192.100.200", "--timeout", "3s")
		if got.status != 3 {
			t.Errorf("attach where no server is: status %d, want 3: %s", got.status, got.stderr)
		}
		if seen.discovers("lan0.200") == 0 {
			t.Error("no DISCOVER came to VLAN 200 of VLAN 100")
		}
		absent(t, "ens192.100.200")
		if _, there := links(t, "")["ens192.100"]; !there {
			t.Error("ens192.100 is gone, which was made by hand")
		}
	})
}

// TestBond: leases on a VLAN of a bond don't notice that the bond fails over, and
// traffic goes on.
func TestBond(t *testing.T) {
	l, k := newLAN(t), newKeeper(t)
	batch(t, "",
		"link add nic1 type veth peer name port1 netns switch",
		"link add nic2 type veth peer name port2 netns switch",
		"link add bond7 type bond mode active-backup miimon 20 num_grat_arp 3",
		"link set nic1 master bond7",
		"link set nic2 master bond7",
		"link set bond7 up")
	t.Cleanup(func() { batch(t, "", "link del bond7", "link del nic1", "link del nic2") })
	batch(t, "switch", "link set port1 master br0 up", "link set port2 master br0 up")
	runBatch(t, "bridge", "switch", []string{"vlan add dev port1 vid 100", "vlan add dev port2 vid 100"})
	l.namespace("a")
	a := k.attach("a", "bond7.100")
	l.granted("a", 100, a)
	if p := links(t, "")["bond7.100"]; p.Link != "bond7" || p.Info.Kind != "vlan" {
		t.Errorf("the parent is a %q on %q, want a vlan on bond7", p.Info.Kind, p.Link)
	}

	const count, before = 60, 10 // answers in all, and before the failure
	ping := exec.Command("ip", "netns", "exec", "a", "busybox", "ping", "-c", fmt.Sprint(count), "-i", "0.1", "-W", "1", router(100).String())
	pipe, err := ping.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	asked := theLAN.logs[100].len()
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	lines := bufio.NewScanner(io.TeeReader(pipe, &out))
	for n := 0; n < before; {
		if !lines.Scan() {
			t.Fatalf("ping ended before the failure: %v: %s", ping.Wait(), &out)
		}
		n += strings.Count(lines.Text(), "seq=")
	}
	active := strings.TrimSpace(command(t, "cat", "/sys/class/net/bond7/bonding/active_slave"))
	port := map[string]string{"nic1": "port1", "nic2": "port2"}[active]
	if port == "" {
		t.Fatalf("the bond's active member is %q", active)
	}
	ip(t, "-n switch link set "+port+" down")
	for lines.Scan() { // to the end
	}
	if err := ping.Wait(); err != nil {
		t.Fatalf("ping over the failure: %v: %s", err, &out)
	}
	if now := strings.TrimSpace(command(t, "cat", "/sys/class/net/bond7/bonding/active_slave")); now == active {
		t.Errorf("the bond did not fail over from %s", active)
	}
	// The bond looks at its members every 20 ms; the rest is the emulation's.
	if got := strings.Count(out.String(), "seq="); got < count-10 {
		t.Errorf("%d of %d answers came:\n%s", got, count, &out)
	} else {
		t.Logf("%d of %d answers came", got, count)
	}
	if all := k.leases(); len(all) != 1 || all[0].State != "bound" || all[0].Address != a.Address || all[0].ParentState != "up" {
		t.Errorf("the leases are %+v, want %s as it was", all, a.Address)
	}
	if said := theLAN.logs[100].from(asked); strings.Contains(said, "DHCPDISCOVER") {
		t.Errorf("the failover led to\n%s", said)
	}
	l.granted("a", 100, a)
	k.detach("a")
	l.servers[100].freed(a.MAC)
	absent(t, "bond7.100")
}
