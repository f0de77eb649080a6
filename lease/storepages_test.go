// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"mvdhcp/provision"
)

// storeFile is a store's file with branches, pages with overflow and free pages.
func storeFile(t testing.TB, records int) []byte {
	t.Helper()
	dir := t.TempDir()
	s, _, _, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		r := sample(i)
		if i%40 == 0 {
			r.Resolv = &SavedResolv{File: provision.ResolvFile{}, Content: bytes.Repeat([]byte("x"), 20_000), Saved: true}
		}
		s.PutLater(r)
	}
	for i := range records / 10 {
		if err := s.Delete(sample(i * 3).ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "leases.db"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What bbolt writes is accepted, whatever is put in and taken out: no store is
// set aside that is as it should be.
func TestPagesOfEveryStore(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 2))
		path := filepath.Join(t.TempDir(), "leases.db")
		db, err := openBolt(path)
		if err != nil {
			t.Fatal(err)
		}
		db.NoSync = true
		keys := 1 + rng.IntN(3000)
		for round := range rounds {
			// Many rounds take more away than they put in, until nothing is left.
			puts, batch := rng.IntN(10), 1+rng.IntN(1+rng.IntN(500))
			err := db.Update(func(tx *bolt.Tx) error {
				b := tx.Bucket(bucket)
				for range batch {
					k := fmt.Appendf(nil, "%x", rng.IntN(keys))
					if rng.IntN(10) >= puts {
						if err := b.Delete(k); err != nil {
							return err
						}
						continue
					}
					size := rng.IntN(2000)
					if rng.IntN(50) == 0 {
						size = rng.IntN(50_000)
					}
					if err := b.Put(k, make([]byte, size)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			fi, err := f.Stat()
			if err == nil {
				err = checkPages(f, fi.Size())
			}
			f.Close()
			if err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
		}
		db.Close()
	}
}

// damage changes a store's file as a bad disk, a bad copy or somebody with
// intent would: single bytes, whole pages, the fields that say where things are.
func damage(b []byte, rng *rand.Rand) []byte {
	ne := binary.NativeEndian
	ps := os.Getpagesize()
	pages := int(ne.Uint64(b[pageHeader+40:]))
	if pages < 5 || pages*ps > len(b) {
		pages = len(b) / ps
	}
	page := func() []byte { n := rng.IntN(pages); return b[n*ps : (n+1)*ps] }
	odd := func() uint64 {
		return []uint64{0, 1, 2, 3, 15, 0xff, 0xfffe, 0xffff, 1 << 31, 1<<32 - 1, 1 << 62, 1<<64 - 1, uint64(pages), uint64(pages - 1), rng.Uint64N(uint64(pages)), rng.Uint64()}[rng.IntN(16)]
	}
	for range 1 + rng.IntN(3) {
		switch rng.IntN(9) {
		case 0:
			for range 1 + rng.IntN(50) {
				b[rng.IntN(pages*ps)] ^= byte(1 << rng.IntN(8))
			}
		case 1: // in a header
			ne.PutUint16(page()[8+2*rng.IntN(2):], uint16(odd()))
		case 2:
			ne.PutUint32(page()[12:], uint32(odd()))
		case 3: // in the table of entries
			p := page()
			if n := int(ne.Uint16(p[10:])); n > 0 && n < ps/elementSize-1 {
				e := p[pageHeader+elementSize*rng.IntN(n):]
				ne.PutUint32(e[4*rng.IntN(4):], uint32(odd()))
			}
		case 4: // a pointer to a page
			p := page()
			if n := int(ne.Uint16(p[10:])); n > 0 && n < ps/elementSize-1 {
				ne.PutUint64(p[pageHeader+8*rng.IntN(2*n):], odd())
			}
		case 5:
			p, q := page(), page()
			tmp := slices.Clone(p)
			copy(p, q)
			copy(q, tmp)
		case 6:
			copy(page(), page())
		case 7:
			fill(page(), byte(rng.IntN(2)*0xa5))
		case 8: // a meta page with the right checksum
			for i := range 2 {
				m := b[i*ps+pageHeader:]
				ne.PutUint64(m[[]int{8, 16, 32, 40, 48}[rng.IntN(5)]:], odd())
				sum := fnv.New64a()
				sum.Write(m[:metaSize-8])
				ne.PutUint64(m[metaSize-8:], sum.Sum64())
			}
		}
	}
	if rng.IntN(10) == 0 {
		b = b[:rng.IntN(len(b))]
	}
	return b
}

// survives opens a damaged file and works with the store. Whether the file is
// still good is not said, but nothing may fault, panic or hang, and one that was
// taken stays good.
func survives(t *testing.T, file []byte) (aside bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "leases.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, name, reason, err := OpenStore(dir)
	if err != nil {
		t.Fatalf("the keeper does not start: %v", err)
	}
	s.db.NoSync = true
	if name != "" && (reason == nil || strings.Contains(reason.Error(), "\n")) {
		t.Errorf("set aside for %q", reason)
	}
	_, _ = s.All() // records may be unreadable one by one
	for i := range 20 {
		r := sample(i * 17)
		if err := s.Put(r); err != nil {
			t.Errorf("Put: %v", err)
		}
		if err := s.Delete(sample(i * 11).ID); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, again, reason, err := OpenStore(dir)
	if err != nil || again != "" {
		t.Fatalf("after some writes: set aside as %q (%v), %v", again, reason, err)
	}
	s.Close()
	return name != ""
}

func TestDamagedPages(t *testing.T) {
	file := storeFile(t, 400)
	if err := checkPages(bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatalf("undamaged: %v", err)
	}
	aside := 0
	const tries = 150
	for seed := range uint64(tries) {
		if survives(t, damage(slices.Clone(file), rand.New(rand.NewPCG(seed, 0)))) {
			aside++
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
	if aside < tries/2 {
		t.Errorf("%d of %d files were set aside", aside, tries)
	}
}

func FuzzDamagedPages(f *testing.F) {
	file := storeFile(f, 120)
	f.Add(uint64(1), []byte{})
	f.Add(uint64(2), []byte{0xff, 0, 0x10})
	f.Fuzz(func(t *testing.T, seed uint64, over []byte) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := damage(slices.Clone(file), rng)
		if len(b) > len(over) {
			copy(b[rng.IntN(len(b)-len(over)):], over)
		}
		survives(t, b)
	})
}

// The check costs a keeper's start next to nothing.
func BenchmarkOpenStore(b *testing.B) {
	file := storeFile(b, 1000)
	path := filepath.Join(b.TempDir(), "leases.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := checkFile(path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			db, err := openBolt(path)
			if err != nil {
				b.Fatal(err)
			}
			db.Close()
		}
	})
}

// A file that somebody writes to is no damaged file.
func TestLockedFileIsNotChecked(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	start := time.Now()
	if err := checkFile(s.path); err == nil || damaged(err) {
		t.Errorf("error %v, want that of a lock", err)
	}
	if time.Since(start) < lockWait {
		t.Error("the other keeper had no time to let go")
	}
	s.Close()
	if err := checkFile(s.path); err != nil {
		t.Error(err)
	}
	if err := checkFile(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
	if err := checkPages(bytes.NewReader(make([]byte, 10)), 10); !errors.Is(err, errDamaged) {
		t.Errorf("ten bytes: %v", err)
	}
}
