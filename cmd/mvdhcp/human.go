// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode"

	"mvdhcp/internal/api"
)

func isShown(r rune) bool { return unicode.IsPrint(r) }

// span writes a duration as people say it: 90s, 2m, 12h, 1d12h. It keeps the
// two largest units.
func span(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 0:
		return "0s"
	case s < 120 && s != 60:
		return fmt.Sprintf("%ds", s)
	}
	units := []struct {
		size int64
		name string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}}
	for i, u := range units {
		if s < u.size {
			continue
		}
		out := fmt.Sprintf("%d%s", s/u.size, u.name)
		if i+1 < len(units) {
			if rest := s % u.size / units[i+1].size; rest > 0 {
				out += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return out
	}
	return "0s"
}

// leaseTime writes the lease time of a lease or an offer.
func leaseTime(seconds int64) string {
	if isForever(seconds) {
		return "for ever"
	}
	return span(time.Duration(min(max(seconds, 0), math.MaxUint32)) * time.Second)
}

// isForever: RFC 2131, 3.3.
func isForever(seconds int64) bool { return seconds == math.MaxUint32 }

// describe puts a lease into a line.
func describe(l api.Lease, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s", clean(l.Identity), clean(l.Ifname), cmp.Or(clean(l.Address), "without an address"))
	if l.Gateway != "" {
		fmt.Fprintf(&b, " via %s", clean(l.Gateway))
	}
	if l.Address == "" {
		fmt.Fprintf(&b, " (%s)", clean(l.State))
	} else if l.Server != "" {
		fmt.Fprintf(&b, ", lease %s from %s", leaseTime(l.LeaseSeconds), clean(l.Server))
	}
	if !isForever(l.LeaseSeconds) && !l.RenewAt.IsZero() {
		if left := l.RenewAt.Sub(now); left > 0 {
			fmt.Fprintf(&b, ", renews in %s", span(left))
		} else {
			b.WriteString(", renewal due")
		}
	}
	if l.LastError != "" {
		fmt.Fprintf(&b, " (last error: %s)", clean(l.LastError))
	}
	return b.String()
}

// where says which interface of which target a lease is on.
func where(ifname, target string) string {
	if target == "" {
		return clean(ifname)
	}
	return clean(ifname) + "@" + clean(target)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printJSONLine is for streams.
func printJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
