// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

// killed is what the next program finds when the one with s is killed now: the
// files, with nothing of what s would still have done.
func killed(t *testing.T, dir string) string {
	t.Helper()
	copied := t.TempDir()
	for _, name := range []string{"leases.db", "leases.journal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

func stored(t *testing.T, s *BoltStore) (states map[string]State) {
	t.Helper()
	all, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	states = map[string]State{}
	for _, r := range all {
		states[r.ID] = r.State
	}
	return states
}

// in is a record in a state.
func (r Record) in(s State) Record { r.State = s; return r }

func TestJournalSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	want := map[string]State{}
	step := func(what string) {
		t.Helper()
		got := stored(t, openStore(t, killed(t, dir)))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("killed after %s (-want +got):\n%s", what, d)
		}
	}
	a, b := sample(1).in(Init), sample(2).in(Init)
	step("nothing")
	s.Note(a)
	want[a.ID] = Init
	step("a note that nobody waits for")
	s.PutLater(a.in(Requesting))
	want[a.ID] = Requesting
	step("PutLater")
	if err := s.Note(b)(); err != nil {
		t.Fatal(err)
	}
	want[b.ID] = Init
	step("a note")
	stored(t, s) // brings the database up to date
	step("All")
	if err := s.Delete(a.ID); err != nil {
		t.Fatal(err)
	}
	delete(want, a.ID)
	step("Delete")
	stored(t, s)
	if err := s.Put(b.in(Bound)); err != nil {
		t.Fatal(err)
	}
	want[b.ID] = Bound
	step("an entry over an older round's")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	step("Close")
}

// An entry that is not whole ends the journal; what stood before it counts.
func TestJournalDamaged(t *testing.T) {
	from := t.TempDir()
	s := openStore(t, from)
	var name string
	err := s.db.View(func(tx *bolt.Tx) error {
		name = string(tx.Bucket(ownBucket).Get(keyName))
		return nil
	})
	if err != nil || name == "" {
		t.Fatalf("name %q, %v", name, err)
	}
	s.Close()
	j, err := openJournal(filepath.Join(from, "leases.journal"), name, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64
	for i := range 3 {
		b, err := sample(i).in(Init).Encode()
		if err == nil {
			err = j.add(sample(i).ID, b, func(uint64) {})
		}
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, j.end)
	}
	j.close()
	whole, err := os.ReadFile(filepath.Join(from, "leases.journal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(b []byte) []byte
		want int
	}{
		{"whole", func(b []byte) []byte { return b }, 3},
		{"cut in the third", func(b []byte) []byte { return b[:ends[2]-1] }, 2},
		{"zeros in the third", func(b []byte) []byte { clear(b[ends[2]-9:]); return b }, 2},
		{"a bit in the second", func(b []byte) []byte { b[ends[0]+40] ^= 1; return b }, 1},
		{"the second again as the third", func(b []byte) []byte { return append(b[:ends[1]], b[ends[0]:ends[1]]...) }, 2},
		{"a length beyond the end", func(b []byte) []byte { b[6] = 0xff; return b }, 0},
		{"noise", func(b []byte) []byte { fill(b, 0xa5); return b }, 0},
		{"empty", func([]byte) []byte { return nil }, 0},
		{"longer than it can be", func(b []byte) []byte { return append(b, make([]byte, journalSize)...) }, 3},
	} {
		copied := killed(t, from)
		if err := os.WriteFile(filepath.Join(copied, "leases.journal"), tt.edit(append([]byte(nil), whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, copied)
		if got := stored(t, s); len(got) != tt.want {
			t.Errorf("%s: %d records, want %d", tt.name, len(got), tt.want)
		}
		if err := s.Put(sample(7)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := stored(t, openStore(t, killed(t, copied))); len(got) != tt.want+1 {
			t.Errorf("%s: %d records after another, want %d", tt.name, len(got), tt.want+1)
		}
	}
}

// The journal of another database, as when that was set aside, is none of ours.
func TestJournalOfAnother(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir).Note(sample(1))
	copied := killed(t, dir)
	if err := os.Remove(filepath.Join(copied, "leases.db")); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, openStore(t, copied)); len(got) != 0 {
		t.Errorf("took %v", got)
	}
}

func TestJournalNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "leases.journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := openStore(t, dir).Put(sample(1)); err != nil {
		t.Error(err)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "leases.journal.damaged-*")); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

// A full journal is written from its front again once the database has all of
// it, also when another write was at it at the moment that it took it over.
func TestJournalFullWhileTaken(t *testing.T) {
	s := openStore(t, t.TempDir())
	s.PutLater(sample(1))
	s.journal.mu.Lock()
	s.journal.end = journalSize
	err := s.flush()
	s.journal.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(sample(2)); err != nil {
		t.Error(err)
	}
}

// More than the journal holds, by many at once.
func TestJournalFull(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := sample(i)
			r.LastError = strings.Repeat("x", 4096)
			for n := range 100 {
				r.Renewals = n
				s.PutLater(r)
			}
			if err := s.Put(r.in(Bound)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := map[string]State{}
	for i := range 8 {
		want[sample(i).ID] = Bound
	}
	if d := cmp.Diff(want, stored(t, openStore(t, killed(t, dir)))); d != "" {
		t.Errorf("killed (-want +got):\n%s", d)
	}
	if fi, err := os.Stat(filepath.Join(dir, "leases.journal")); err != nil || fi.Size() != journalSize {
		t.Errorf("journal: %v bytes, %v", fi.Size(), err)
	}
	huge := sample(9)
	huge.LastError = strings.Repeat("x", journalSize)
	if err := s.Put(huge); !errors.Is(err, errJournalFull) {
		t.Errorf("a record that never fits: %v", err)
	}
}
