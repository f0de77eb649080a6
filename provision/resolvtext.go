// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// maxNameservers is how many resolvers look at (resolv.conf(5), MAXNS).
const maxNameservers = 3

// maxSearch bounds the search line's domains together, in bytes.
const maxSearch = 4096

// RenderResolv writes a resolv.conf with these servers and domains. The
// `options` lines of the previous file are kept, and so are its nameservers when
// dns is empty. Domains come off the network: what isn't a plain name is left
// out. The search list starts with domain.
func RenderResolv(dns []netip.Addr, domain string, search []string, previous []byte) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by mvdhcp from a DHCP lease; the previous file comes back on detach.\n")
	for i, a := range dns {
		if i == maxNameservers {
			fmt.Fprintf(&b, "# Resolvers use %d servers; more were given:", maxNameservers)
			for _, more := range dns[i:min(len(dns), 4*maxNameservers)] {
				fmt.Fprintf(&b, " %s", more.WithZone(""))
			}
			b.WriteByte('\n')
			break
		}
		fmt.Fprintf(&b, "nameserver %s\n", a.WithZone(""))
	}
	if len(dns) == 0 {
		keepLines(&b, previous, "nameserver")
	}
	if names := searchList(domain, search); len(names) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(names, " "))
	}
	keepLines(&b, previous, "options")
	return b.Bytes()
}

// keepLines copies the lines that start with this keyword.
func keepLines(b *bytes.Buffer, previous []byte, keyword string) {
	for line := range bytes.Lines(previous[:min(len(previous), maxResolv/2)]) {
		rest, ok := bytes.CutPrefix(line, []byte(keyword))
		if ok && len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
			b.Write(bytes.TrimRight(line, "\r\n"))
			b.WriteByte('\n')
		}
	}
}

func searchList(domain string, search []string) []string {
	var names []string
	seen, size := map[string]bool{}, 0
	for _, name := range append([]string{domain}, search...) {
		name = strings.TrimSuffix(name, ".")
		key := strings.ToLower(name)
		if !isDomain(name) || seen[key] || size+len(name) > maxSearch {
			continue
		}
		seen[key] = true
		size += len(name) + 1
		names = append(names, name)
	}
	return names
}

func isDomain(name string) bool {
	if name == "" || len(name) > 253 || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
