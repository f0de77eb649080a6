// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// report is what the benchmark found. Times are in milliseconds.
type report struct {
	Children int      `json:"children"`
	Turns    int      `json:"turns"`
	Results  []result `json:"results"`
}

type result struct {
	Way    string  `json:"way"`
	Median float64 `json:"median_ms"`
	P90    float64 `json:"p90_ms"`
	Min    float64 `json:"min_ms"`
	// Ratio is the median's to that of the floor.
	Ratio float64 `json:"ratio"`
	// Wanted says in words what is asked of it, and Within whether it is met.
	Wanted string `json:"wanted,omitempty"`
	Within *bool  `json:"within,omitempty"`
}

func newResult(way string, took []time.Duration) result {
	slices.Sort(took)
	return result{Way: way, Median: ms(quantile(took, 0.5)), P90: ms(quantile(took, 0.9)), Min: ms(took[0])}
}

// quantile is the nearest-rank quantile of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

func ms(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

// judge puts the ratios and what is wanted into the results, which are in the
// order of the ways.
func (r *report) judge() {
	floor := r.Results[wayFloor].Median
	for i := range r.Results {
		r.Results[i].Ratio = math.Round(r.Results[i].Median/floor*100) / 100
	}
	want := func(way int, words string, ok bool) {
		r.Results[way].Wanted, r.Results[way].Within = words, &ok
	}
	want(wayKeeper, "at most 1.5 times the floor", r.Results[wayKeeper].Median <= 1.5*floor)
	want(wayCommand, "at most 4 times the floor", r.Results[wayCommand].Median <= 4*floor)
	more := r.Results[wayDefault].Median - r.Results[wayCommand].Median
	want(wayDefault, fmt.Sprintf("at most 25 ms more (%+.1f)", more), more <= 25)
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "Attach on a LAN with %d children, dnsmasq, %d turns each, in milliseconds\n\n", r.Children, r.Turns)
	fmt.Fprintf(w, "  %-42s %8s %8s %8s %8s  %s\n", "", "median", "p90", "min", "ratio", "wanted")
	for _, x := range r.Results {
		verdict := x.Wanted
		if x.Within != nil {
			verdict += map[bool]string{true: ": met", false: ": MISSED"}[*x.Within]
		}
		fmt.Fprintf(w, "  %-42s %8.1f %8.1f %8.1f %7.1f×  %s\n", x.Way, x.Median, x.P90, x.Min, x.Ratio, verdict)
	}
}
