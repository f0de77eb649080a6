// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import "strings"

// maxSearch bounds the domains of option 119 that are kept.
const maxSearch = 16

// domainName reads options 12 and 15: one DNS name, with the NULs and the final
// dot that servers append taken off. "" when it is no valid name.
func domainName(b []byte) string {
	s := strings.TrimRight(string(b), "\x00")
	s = strings.TrimSuffix(s, ".")
	if !validName(s) {
		return ""
	}
	return s
}

// searchList reads option 119: names in the format of RFC 1035, 4.1.4, with
// compression (RFC 3397). A malformed option gives nothing, an invalid name is
// left out.
func searchList(b []byte) []string {
	var names []string
	for pos := 0; pos < len(b); {
		name, next, ok := decodeName(b, pos)
		if !ok {
			return nil
		}
		if validName(name) && len(names) < maxSearch {
			names = append(names, name)
		}
		pos = next
	}
	return names
}

// decodeName returns the name at pos and the place behind it. Each pointer must
// point before the part it ends, so that no chain of them goes on for ever.
func decodeName(b []byte, pos int) (name string, next int, ok bool) {
	var labels []string
	start, length := pos, 0
	for {
		if pos >= len(b) {
			return "", 0, false
		}
		n := int(b[pos])
		switch {
		case n == 0:
			if next == 0 {
				next = pos + 1
			}
			return strings.Join(labels, "."), next, true
		case n&0xc0 == 0xc0:
			if pos+1 >= len(b) {
				return "", 0, false
			}
			if next == 0 {
				next = pos + 2
			}
			to := (n&0x3f)<<8 | int(b[pos+1])
			if to >= start {
				return "", 0, false
			}
			start, pos = to, to
		case n > 63 || pos+1+n > len(b):
			return "", 0, false
		default:
			if length += n + 1; length > 255 {
				return "", 0, false
			}
			label := string(b[pos+1 : pos+1+n])
			labels = append(labels, strings.ReplaceAll(label, ".", "\\.")) // no valid name then
			pos += 1 + n
		}
	}
}

// validName reports whether s is a DNS name of letters, digits, hyphens and
// underscores, safe to stand in a resolv.conf.
func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// printable is s as one line of printable ASCII, at most 255 bytes.
func printable(s string) string {
	b := []byte(strings.TrimRight(s, "\x00"))
	b = b[:min(len(b), 255)]
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
