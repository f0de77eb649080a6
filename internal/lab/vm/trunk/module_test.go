// SPDX-License-Identifier: Apache-2.0

//go:build vm

package trunk

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestNoModule: where the kernel lacks a module and can't load it, an attach fails
// in one line that names it, with nothing left behind; where it can, the same
// attach works.
func TestNoModule(t *testing.T) {
	for _, module := range []string{"8021q", "macvlan"} {
		t.Run(module, func(t *testing.T) {
			l, k := newLAN(t), newKeeper(t)
			l.namespace("a")
			unload(t, module)
			loader := noLoader(t)
			before, held, asked := names(t), l.servers[100].held(), theLAN.logs[100].len()
			got := k.do("attach", "netns:a", "--parent", "ens192.100")
			if got.status != 1 || strings.Contains(got.stderr, "\n") || !strings.Contains(got.stderr, "modprobe "+module) {
				t.Errorf("attach: status %d, %q; want 1 and one line with modprobe %s", got.status, got.stderr, module)
			}
			if loaded(module) {
				t.Fatalf("%s is loaded", module)
			}
			bare(t, "a")
			if after := names(t); !slices.Equal(before, after) {
				t.Errorf("the host had the links %v, and has %v", before, after)
			}
			for _, args := range [][]string{{"leases", "--json"}, {"leases", "--all", "--json"}} {
				if list := k.do(args...); strings.TrimSpace(list.stdout) != "[]" {
					t.Errorf("mvdhcp %s says\n%s", strings.Join(args, " "), list.stdout)
				}
			}
			if now := l.servers[100].held(); !slices.Equal(now, held) {
				t.Errorf("the server holds %v, held %v", now, held)
			}
			if said := theLAN.logs[100].from(asked); said != "" {
				t.Errorf("the server was asked:\n%s", said)
			}

			loader()
			a := k.attach("a", "ens192.100")
			l.granted("a", 100, a)
			k.detach("a")
			l.servers[100].freed(a.MAC)
			absent(t, "ens192.100")
		})
	}
}

// noLoader makes the kernel's module loader fail until what it returns is called,
// or the test ends.
func noLoader(t *testing.T) (restore func()) {
	t.Helper()
	const loader = "/proc/sys/kernel/modprobe"
	was, err := os.ReadFile(loader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(program string) {
		if err := os.WriteFile(loader, []byte(program), 0); err != nil {
			t.Fatal(err)
		}
	}
	restore = func() { set(string(was)) }
	t.Cleanup(restore)
	set("/usr/bin/false")
	return restore
}
