// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"mvdhcp/internal/api"
	"mvdhcp/internal/lab"
)

const (
	leaseTime = 12 * time.Second
	renewTime = 3 * time.Second
	patience  = 15 * time.Second
)

// tell is the story: the set, the two namespaces, the renewal, the end.
func tell(l *lab.Lab) error {
	fmt.Println(dim("Building mvdhcp …"))
	l.Binary()

	step("A LAN with a DHCP server, and a host on it")
	server := l.Embedded(lab.ServerOptions{Lease: leaseTime, T1: renewTime})
	host := l.Host("host")
	wire := host.Capture(lab.Uplink, lab.DHCPOnly)
	say("The server at %v leases addresses for %v and wants them renewed after %v.", server.Addr, leaseTime, renewTime)
	say("The host's interface on the LAN is %s. Two network namespaces on the host have no network.", lab.Uplink)
	web, db := l.Container("web"), l.Container("db")

	step("A keeper on the host holds its leases")
	keeper := l.NoKeeper(host)
	command("serve &")
	keeper.Start()
	events := keeper.Command("events", "--json")

	step("Two commands put the namespaces on the LAN")
	leases := map[*lab.Container]api.Lease{}
	for c, name := range names(web, db) {
		args := []string{"attach", c.Target(), "--parent", lab.Uplink, "--identity", name}
		command(args...)
		output(keeper.MustRun(args...))
	}
	var list []api.Lease
	keeper.JSON(&list, "leases")
	for _, lease := range list {
		for c := range names(web, db) {
			if lease.Target == c.Target() {
				leases[c] = lease
			}
		}
	}
	if len(leases) != 2 {
		return fmt.Errorf("the keeper lists %d leases, want 2: %v", len(leases), list)
	}

	step("What the keeper says, and what the server says")
	command("leases")
	output(keeper.MustRun("leases"))
	pool(server)

	step("They reach each other and the server")
	for _, to := range []struct {
		name string
		addr string
	}{{"db", leases[db].Address}, {"the server", server.Addr.String()}} {
		if err := ping(web, to.name, to.addr); err != nil {
			return err
		}
	}

	step("After %v the keeper renews, from inside the namespaces", renewTime)
	if err := renewal(wire, events, leases[web]); err != nil {
		return err
	}

	step("Two commands take them off the LAN; their addresses are free at once")
	for c := range names(web, db) {
		args := []string{"detach", c.Target()}
		command(args...)
		output(keeper.MustRun(args...))
	}
	l.Eventually(patience, "the server's pool is empty", func() bool { return len(server.Leases()) == 0 })
	pool(server)
	for c, name := range names(web, db) {
		if links := c.Links(); len(links) > 0 {
			return fmt.Errorf("%s still has %v", name, links)
		}
	}
	fmt.Println()
	return nil
}

// names gives the namespaces in order with the names of the story.
func names(web, db *lab.Container) func(yield func(*lab.Container, string) bool) {
	return func(yield func(*lab.Container, string) bool) {
		_ = yield(web, "web") && yield(db, "db")
	}
}

func ping(from *lab.Container, name, to string) error {
	addr, err := addrOf(to)
	if err != nil {
		return err
	}
	took, err := from.Ping(addr, patience)
	if err != nil {
		return err
	}
	say("web pings %s (%v): %.2f ms", name, addr, float64(took.Microseconds())/1000)
	return nil
}

// pool shows the server's own list of leases.
func pool(server *lab.Embedded) {
	leases := server.Leases()
	if len(leases) == 0 {
		say("The server's list of leases: empty.")
		return
	}
	say("The server's list of leases:")
	for _, l := range leases {
		say("  %-12v %s, ends in %.0f s", l.Addr, l.MAC, time.Until(l.Expiry).Seconds())
	}
}

// renewal waits for one and shows it as the keeper's event and as it was on the
// wire.
func renewal(wire *lab.Capture, events *lab.Process, lease api.Lease) error {
	command("events --json")
	line, err := awaitEvent(events, "renewed", lease.ID)
	if err != nil {
		return err
	}
	output(line)
	addr, err := addrOf(lease.Address)
	if err != nil {
		return err
	}
	request := wire.Wait(patience, "unicast REQUEST", func(p lab.Packet) bool {
		return p.Type() == dhcpv4.MessageTypeRequest && p.SrcIP == addr
	})
	ack := wire.Wait(patience, "its ACK", func(p lab.Packet) bool {
		return p.Type() == dhcpv4.MessageTypeAck && p.DHCP.TransactionID == request.DHCP.TransactionID
	})
	say("On the wire:")
	for _, p := range []lab.Packet{request, ack} {
		say("  %s %v:%d → %v:%d %v", p.Time.Format("15:04:05.000"), p.SrcIP, p.SrcPort, p.DstIP, p.DstPort, p.Type())
	}
	return nil
}

// awaitEvent returns the first line that tells of such an event of a lease.
func awaitEvent(events *lab.Process, kind, lease string) (string, error) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for line := range strings.Lines(events.Output()) {
			var e api.Event
			if json.Unmarshal([]byte(line), &e) == nil && e.Kind == kind && e.Lease == lease {
				return strings.TrimSpace(line), nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("no event %q of lease %s within %v; there were:\n%s", kind, lease, patience, events.Output())
}

// addrOf takes an address with or without its prefix length.
func addrOf(s string) (netip.Addr, error) {
	s, _, _ = strings.Cut(s, "/")
	return netip.ParseAddr(s)
}
