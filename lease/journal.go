// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// journal is a file of writes that the database does not have yet, one after the
// other from its beginning. What is written to it outlives this process at once,
// and a power cut after sync, which is one flush of blocks that exist already:
// the file has its full size from the start. Once the database has everything,
// writing begins at the front again.
//
// An entry is a header and the record: CRC-32C of all that follows, seeded with
// the name of the database; length of id and of data; number; id; data. The
// numbers count up by one, so that what an earlier round left behind the last
// entry is told from what belongs to this one.
type journal struct {
	f    *os.File
	seed uint32

	mu   sync.Mutex
	last uint64 // the number of the entry written last
	end  int64
	// taken is the number of the last entry that the database has.
	taken atomic.Uint64
}

const (
	journalSize   = 1 << 20
	journalHeader = 4 + 2 + 4 + 8
)

// castagnoli is made by its first user: commands that keep no journal start too.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// errJournalFull asks for the database to take over what there is.
var errJournalFull = errors.New("the journal is full")

// openJournal opens the journal of the database called store, and gives the
// entries that come after number to take, in their order.
func openJournal(path, store string, number uint64, take func(id string, data []byte) error) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, seed: crc32.Checksum([]byte(store), castagnoli()), last: number}
	if err = j.replay(take); err == nil {
		err = j.fill()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

// replay stops at the first entry that is not whole: nobody was told that it
// was stored.
func (j *journal) replay(take func(id string, data []byte) error) error {
	b, err := io.ReadAll(io.LimitReader(j.f, journalSize))
	if err != nil {
		return err
	}
	for before := uint64(0); ; {
		number, id, data, rest, ok := j.next(b)
		if !ok || before != 0 && number != before+1 {
			return nil
		}
		if before, b = number, rest; number <= j.last {
			continue
		}
		if err := take(id, data); err != nil {
			return err
		}
		j.last = number
	}
}

func (j *journal) next(b []byte) (number uint64, id string, data, rest []byte, ok bool) {
	if len(b) < journalHeader {
		return 0, "", nil, nil, false
	}
	name, size := int(binary.BigEndian.Uint16(b[4:])), int64(binary.BigEndian.Uint32(b[6:]))
	end := journalHeader + int64(name) + size
	if end > int64(len(b)) || crc32.Update(j.seed, castagnoli(), b[4:end]) != binary.BigEndian.Uint32(b) {
		return 0, "", nil, nil, false
	}
	at := journalHeader + name
	return binary.BigEndian.Uint64(b[10:]), string(b[journalHeader:at]), b[at:end], b[end:], true
}

// fill gives the file its size, in blocks that are written.
func (j *journal) fill() error {
	fi, err := j.f.Stat()
	if err != nil || fi.Size() == journalSize {
		return err
	}
	if _, err := j.f.WriteAt(make([]byte, journalSize), 0); err != nil {
		return fmt.Errorf("%s: make room: %w", j.f.Name(), err)
	}
	if err := j.f.Truncate(journalSize); err != nil {
		return err
	}
	return j.f.Sync()
}

// add writes an entry and hands its number to queue before another is added.
func (j *journal) add(id string, data []byte, queue func(number uint64)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := make([]byte, journalHeader, journalHeader+len(id)+len(data))
	binary.BigEndian.PutUint16(b[4:], uint16(len(id)))
	binary.BigEndian.PutUint32(b[6:], uint32(len(data)))
	binary.BigEndian.PutUint64(b[10:], j.last+1)
	b = append(append(b, id...), data...)
	binary.BigEndian.PutUint32(b, crc32.Update(j.seed, castagnoli(), b[4:]))
	if j.taken.Load() == j.last {
		j.end = 0
	}
	if j.end+int64(len(b)) > journalSize {
		return errJournalFull
	}
	if _, err := j.f.WriteAt(b, j.end); err != nil {
		return err
	}
	j.end += int64(len(b))
	j.last++
	queue(j.last)
	return nil
}

// sync returns when every entry added before would survive a power cut.
func (j *journal) sync() error {
	for {
		if err := unix.Fdatasync(int(j.f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (j *journal) close() error { return j.f.Close() }
