// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// sample is a record with every kind of field in use.
func sample(n int) Record {
	mac := net.HardwareAddr{2, 0, 0, 1, byte(n >> 8), byte(n)}
	return Record{
		Version: recordVersion, ID: fmt.Sprintf("id%06d", n),
		Spec: Spec{
			Identity: fmt.Sprintf("web%d", n), Parent: "ens192.100", Ifname: "eth0", Mode: provision.Bridge, MAC: mac,
			ClientID: append([]byte{1}, mac...), Hostname: "web", Routes: RoutesAll, Conflict: dhcpclient.ConflictFast,
			Allow: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		},
		Target: Target{Kind: TargetNetNS, Name: fmt.Sprintf("netns:web%d", n)},
		NS:     provision.Namespace{Path: fmt.Sprintf("/run/netns/web%d", n), Dev: 4, Ino: 4026532000 + uint64(n)},
		Child:  provision.Child{Name: "eth0", Index: n + 2, MAC: mac, NSID: n},
		State:  Bound, Established: true, BootID: "boot-1", ParentIndex: 2,
		Binding: &dhcpclient.Binding{
			Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 16),
			Server:  netip.MustParseAddr("10.0.0.1"), NextHopMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
			Router: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")}, Domain: "lab",
			Lease: 12 * time.Hour, T1: 6 * time.Hour, T2: 10*time.Hour + 30*time.Minute,
		},
		BoundAt: Moment{BootID: "boot-1", Boot: time.Hour, Wall: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

var cmpAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func openStore(t *testing.T, dir string) *BoltStore {
	t.Helper()
	s, aside, reason, err := OpenStore(dir)
	if err != nil || aside != "" {
		t.Fatalf("OpenStore: aside %q (%v), error %v", aside, reason, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStoreSurvivesReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	s := openStore(t, dir)
	want := []Record{sample(1), sample(2)}
	for _, r := range append(slices.Clone(want), sample(3)) {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{sample(3).ID, "never-there"} {
		if err := s.Delete(id); err != nil {
			t.Fatalf("Delete(%s): %v", id, err)
		}
	}
	later := want[1]
	later.State = Renewing
	want[1] = later
	s.PutLater(later) // Close commits what is queued
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := s.Put(want[0]); !errors.Is(err, errStoreClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	s.PutLater(want[0]) // must neither panic nor hang

	s = openStore(t, dir)
	got, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpAddrs); d != "" {
		t.Errorf("after reopening (-want +got):\n%s", d)
	}
	if path, size := s.Info(); path != filepath.Join(dir, "leases.db") || size <= 0 {
		t.Errorf("Info: %s, %d bytes", path, size)
	}
	for _, p := range []string{dir, filepath.Join(dir, "leases.db")} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v; want it closed to others", p, fi.Mode(), err)
		}
	}
}

func TestStoreDamaged(t *testing.T) {
	full := func(t *testing.T) []byte {
		dir := t.TempDir()
		s := openStore(t, dir)
		for i := range 200 {
			if err := s.Put(sample(i)); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		b, err := os.ReadFile(filepath.Join(dir, "leases.db"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}(t)
	page := os.Getpagesize()
	mutate := func(f func(b []byte) []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, f(slices.Clone(full)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		make func(t *testing.T, path string)
		kept bool // the file is used as it is
	}{
		"zero length is a new store": {func(t *testing.T, p string) { os.WriteFile(p, nil, 0o600) }, true},
		"foreign text":               {func(t *testing.T, p string) { os.WriteFile(p, []byte(strings.Repeat("hello\n", 5000)), 0o600) }, false},
		"one byte":                   {func(t *testing.T, p string) { os.WriteFile(p, []byte{1}, 0o600) }, false},
		"zeros":                      {func(t *testing.T, p string) { os.WriteFile(p, make([]byte, 1<<16), 0o600) }, false},
		"truncated to half":          {mutate(func(b []byte) []byte { return b[:len(b)/2] }), false},
		"truncated to the metas":     {mutate(func(b []byte) []byte { return b[:2*page] }), false},
		"pages of garbage":           {mutate(func(b []byte) []byte { fill(b[2*page:], 0xa5); return b }), false},
		"pages of zeros":             {mutate(func(b []byte) []byte { fill(b[2*page:], 0); return b }), false},
		"both metas gone":            {mutate(func(b []byte) []byte { fill(b[:2*page], 0xff); return b }), false},
		"directory in its place":     {func(t *testing.T, p string) { os.Mkdir(p, 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "leases.db")
			tc.make(t, path)
			s, aside, reason, err := OpenStore(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if tc.kept != (aside == "") {
				t.Fatalf("set aside as %q (%v)", aside, reason)
			}
			if aside != "" {
				if _, err := os.Stat(aside); err != nil || reason == nil || filepath.Dir(aside) != dir {
					t.Errorf("aside %s: %v, reason %v", aside, err, reason)
				}
			}
			if got, err := s.All(); err != nil || len(got) != 0 {
				t.Errorf("a new store holds %d records, %v", len(got), err)
			}
			if err := s.Put(sample(1)); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
}

// A file that was cut short anywhere is set aside, or complete all the same.
func TestStoreCutShort(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for i := range 100 {
		if err := s.Put(sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	full, err := os.ReadFile(filepath.Join(dir, "leases.db"))
	if err != nil {
		t.Fatal(err)
	}
	aside := 0
	page := os.Getpagesize()
	for n := page; n < len(full); n += page + len(full)/page/20*page {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "leases.db"), full[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, name, _, err := OpenStore(dir)
		if err != nil {
			t.Fatalf("%d of %d bytes: %v", n, len(full), err)
		}
		got, err := s.All()
		s.Close()
		want := 100
		if name != "" {
			want = 0
			aside++
		}
		if err != nil || len(got) != want {
			t.Errorf("%d of %d bytes: set aside %q, %d records, %v", n, len(full), name, len(got), err)
		}
	}
	if aside == 0 {
		t.Error("no file was set aside")
	}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func TestStoreRefusesWhatItCannotUse(t *testing.T) {
	t.Run("a file for a directory", func(t *testing.T) {
		p := filepath.Join(t.TempDir(), "file")
		os.WriteFile(p, nil, 0o600)
		if _, _, _, err := OpenStore(p); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v, want one that names %s", err, p)
		}
	})
	t.Run("a directory that is full", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		if _, aside, _, err := OpenStore(dir); err == nil || aside != "" || !strings.Contains(err.Error(), dir+" is full") {
			t.Errorf("aside %q, error %v; want one that says that %s is full", aside, err, dir)
		}
	})
	t.Run("a store that another keeper has open", func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		if err := s.Put(sample(1)); err != nil {
			t.Fatal(err)
		}
		if _, aside, _, err := OpenStore(dir); err == nil || aside != "" || !strings.Contains(err.Error(), "in use by another process") {
			t.Fatalf("second OpenStore: aside %q, error %v; it must say so and leave the file alone", aside, err)
		}
		if got, err := s.All(); err != nil || len(got) != 1 {
			t.Errorf("first store: %d records, %v", len(got), err)
		}
	})
}

func TestStoreLeavesUnreadableOut(t *testing.T) {
	s := openStore(t, t.TempDir())
	good := sample(1)
	if err := s.Put(good); err != nil {
		t.Fatal(err)
	}
	enc, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		return errors.Join(
			b.Put([]byte("junk"), []byte("{")),
			b.Put([]byte("later"), []byte(strings.Replace(string(enc), `"version":1`, `"version":2`, 1))),
			b.Put([]byte("elsewhere"), enc), // the key is not the record's id
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.All()
	if d := cmp.Diff([]Record{good}, got, cmpAddrs); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	for _, want := range []string{"not a lease record", "version 2", "elsewhere"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not tell of %q", err, want)
		}
	}
}

// What is queued by PutLater is written before any later Put, also when many
// goroutines write at once.
func TestStoreOrder(t *testing.T) {
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := sample(i)
			for n := range 20 {
				r.State, r.Renewals = Requesting, 2*n
				s.PutLater(r)
				r.State, r.Renewals = Bound, 2*n+1
				if err := s.Put(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	got, err := s.All()
	if err != nil || len(got) != 16 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for _, r := range got {
		if r.State != Bound || r.Renewals != 39 {
			t.Errorf("%s: state %s, renewals %d; an earlier write came last", r.ID, r.State, r.Renewals)
		}
	}
}
