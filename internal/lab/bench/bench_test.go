// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mvdhcp/internal/lab"
)

// TestRealBench runs every way once.
func TestRealBench(t *testing.T) {
	r, err := measure(lab.New(t), options{children: 2, turns: 1})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	r.print(&b)
	t.Log(b.String())
	for _, x := range r.Results {
		if x.Median <= 0 || x.Ratio <= 0 {
			t.Errorf("%s: %+v", x.Way, x)
		}
	}
}

func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name   string
		median [6]time.Duration
		ratios []float64
		within []bool // of those that have a bound
	}{
		{"met", [6]time.Duration{2 * ms, 3 * ms, 4 * ms, 8 * ms, 33 * ms, 100 * ms}, []float64{1, 1.5, 2, 4, 16.5, 50}, []bool{true, true, true}},
		{"missed", [6]time.Duration{2 * ms, 4 * ms, 5 * ms, 9 * ms, 35 * ms, 100 * ms}, []float64{1, 2, 2.5, 4.5, 17.5, 50}, []bool{false, false, false}},
	} {
		var r report
		for _, m := range tt.median {
			r.Results = append(r.Results, newResult("way", []time.Duration{m + ms, m, m - ms}))
		}
		r.judge()
		var ratios []float64
		var within []bool
		for _, x := range r.Results {
			ratios = append(ratios, x.Ratio)
			if x.Within != nil {
				within = append(within, *x.Within)
			}
		}
		if diff := cmp.Diff(tt.ratios, ratios); diff != "" {
			t.Errorf("%s: ratios (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.within, within); diff != "" {
			t.Errorf("%s: within (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestQuantile(t *testing.T) {
	var ten []time.Duration
	for i := range 10 {
		ten = append(ten, time.Duration(i+1))
	}
	for _, tt := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{ten, 0.5, 5}, {ten, 0.9, 9}, {ten[:1], 0.5, 1}, {ten[:1], 0.9, 1}, {ten[:3], 0.9, 3},
	} {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("quantile %v of %v is %v, want %v", tt.q, tt.sorted, got, tt.want)
		}
	}
}
