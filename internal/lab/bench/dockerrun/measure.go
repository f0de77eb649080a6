// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"time"

	"mvdhcp/internal/lab"
)

// wanted is the most that a run with an address by DHCP may take, as a multiple
// of one with a static address.
const wanted = 1.05

// way is a network to run containers on. Engines before 27.0.1 want a parent of
// its own for each.
type way struct {
	name    string
	parent  string
	network []string // further arguments of network create
}

func ways(subnet netip.Prefix) []way {
	ipam := func(parent string, more ...string) []string {
		return append([]string{"--ipam-driver", "mvdhcp", "--ipam-opt", "parent=" + parent}, more...)
	}
	apart := netip.PrefixFrom(subnet.Addr().Next(), 24).Masked() // no address of the DHCP server's range
	return []way{
		{"static IPAM", "up1", []string{"--subnet", subnet.String(), "--ip-range", apart.String()}},
		{"mvdhcp, conflict-check=async", lab.Uplink, ipam(lab.Uplink, "--ipam-opt", "conflict-check=async")},
		{"mvdhcp", "up2", ipam("up2")},
	}
}

// report has times in milliseconds.
type report struct {
	Turns   int      `json:"turns"`
	Results []result `json:"results"`
}

type result struct {
	Network string  `json:"network"`
	Median  float64 `json:"median_ms"`
	P90     float64 `json:"p90_ms"`
	Min     float64 `json:"min_ms"`
	Ratio   float64 `json:"ratio"` // of the medians, to static IPAM
}

func measure(l *lab.Lab, turns int) (report, error) {
	h := l.Host("host")
	lan := l.LAN("lan")
	h.Plug("up1", lan)
	h.Plug("up2", lan)
	server := l.Dnsmasq(lab.ServerOptions{Lease: 12 * time.Hour})
	s := l.Systemd(h, l.Units("/usr/local/bin/mvdhcp serve", l.Binary()+" serve"))
	s.Run("systemctl", "start", "mvdhcp.socket", "mvdhcp-docker.socket")
	e := s.Engine()
	defer e.Close()

	all := ways(netip.PrefixFrom(server.Addr, lan.Subnet.Bits()).Masked())
	took := make([][]time.Duration, len(all))
	for i, w := range all {
		args := append([]string{"network", "create", "-d", "macvlan", "-o", "parent=" + w.parent}, w.network...)
		e.Docker(append(args, fmt.Sprintf("net%d", i))...)
	}
	for turn := range turns + 1 { // the first one warms up
		for i := range all {
			i = (i + turn) % len(all) // nobody always comes after the same one
			start := time.Now()
			if out, err := e.TryDocker("run", "--rm", "--network", fmt.Sprintf("net%d", i), lab.Image, "/bin/busybox", "true"); err != nil {
				return report{}, fmt.Errorf("docker run with %s: %w: %s", all[i].name, err, out)
			}
			if d := time.Since(start); turn > 0 {
				took[i] = append(took[i], d)
			}
		}
	}
	r := report{Turns: turns}
	for i, w := range all {
		slices.Sort(took[i])
		x := result{Network: w.name, Median: ms(took[i][(turns-1)/2]), P90: ms(took[i][(9*turns+9)/10-1]), Min: ms(took[i][0])}
		r.Results = append(r.Results, x)
		r.Results[i].Ratio = math.Round(x.Median/r.Results[0].Median*1000) / 1000
	}
	return r, nil
}

func ms(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

func (r report) print(w io.Writer) {
	fmt.Fprintf(w, "\ndocker run --rm on macvlan networks of one engine, %d turns each, in milliseconds\n\n", r.Turns)
	fmt.Fprintf(w, "  %-42s %8s %8s %8s %8s\n", "", "median", "p90", "min", "ratio")
	for i, x := range r.Results {
		verdict := ""
		if i == 1 {
			verdict = fmt.Sprintf("  at most %.2f: %s", wanted, map[bool]string{true: "met", false: "MISSED"}[x.Ratio <= wanted])
		}
		fmt.Fprintf(w, "  %-42s %8.1f %8.1f %8.1f %7.3f×%s\n", x.Network, x.Median, x.P90, x.Min, x.Ratio, verdict)
	}
}
