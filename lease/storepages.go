// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The parts of a bbolt file (go.etcd.io/bbolt, internal/common), which has the
// byte order of the machine.
const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	pageHeader   = 16 // id, flags, count, overflow
	elementSize  = 16 // of a branch: pos, ksize, pgid; of a leaf: flags, pos, ksize, vsize
	metaSize     = 64
	bucketHeader = 16 // root, sequence

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketLeaf   = 0x01
)

// Limits of a file that is believed. They are far beyond what leases need.
const (
	maxStore   = 1 << 30
	maxRun     = 64 << 20 // of a page with its overflow
	maxDepth   = 32       // of a tree
	maxBuckets = 4        // nested into each other
	maxTxid    = 1 << 63  // the later meta page is found by it: it must not overflow
)

// boltMeta is a meta page.
type boltMeta struct {
	pageSize              uint32
	root, freelist, pages uint64 // pages: all ids are below it
	txid                  uint64
}

// boltFile is a file under examination.
type boltFile struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64
	used     []bool // by page id
}

// checkPages reads a bbolt file of that size and reports what is wrong with its
// pages. bbolt itself maps the file and believes it: a page that lies makes it
// fault, panic or loop, in goroutines of its own too. A file that this function
// accepts is a tree: every page has its place in it or is free, once, and all
// that pages point to lies inside of them.
func checkPages(r io.ReaderAt, size int64) error {
	if size > maxStore {
		return fmt.Errorf("%w: it has %d bytes, more than a store of leases can have", errDamaged, size)
	}
	f := &boltFile{r: r}
	m, err := f.meta(size)
	if err != nil {
		return err
	}
	f.pages = m.pages
	if m.pages < 4 || m.pages > uint64(size/f.pageSize) {
		return fmt.Errorf("%w: it is shorter than its %d pages", errDamaged, m.pages)
	}
	f.used = make([]bool, m.pages)
	f.used[0], f.used[1] = true, true
	if err := f.freelist(m.freelist); err != nil {
		return err
	}
	if err := f.tree(m.root, nil, nil, 0, 0); err != nil {
		return err
	}
	for id, used := range f.used {
		if !used {
			return fmt.Errorf("%w: page %d is neither in use nor free", errDamaged, id)
		}
	}
	return nil
}

// meta finds the page size and returns the meta page that bbolt goes by: the
// later one, or the other where that is invalid.
func (f *boltFile) meta(size int64) (boltMeta, error) {
	first, err := f.metaAt(0)
	f.pageSize = int64(first.pageSize)
	for pos := int64(1024); err != nil && pos <= 16<<20 && pos < size-1024; pos *= 2 {
		var second boltMeta
		if second, err = f.metaAt(pos); err == nil {
			f.pageSize = int64(second.pageSize)
		}
	}
	switch {
	case err != nil:
		return boltMeta{}, err
	case f.pageSize < 1024 || f.pageSize > 1<<16 || f.pageSize&(f.pageSize-1) != 0:
		return boltMeta{}, fmt.Errorf("%w: pages of %d bytes", errDamaged, f.pageSize)
	}
	a, errA := f.metaAt(0)
	b, errB := f.metaAt(f.pageSize)
	if errA != nil || errB == nil && b.txid > a.txid {
		a, errA = b, errB
	}
	switch {
	case errA != nil:
	case int64(a.pageSize) != f.pageSize:
		return a, fmt.Errorf("%w: pages of %d and of %d bytes", errDamaged, f.pageSize, a.pageSize)
	case a.txid > maxTxid:
		return a, fmt.Errorf("%w: %d transactions", errDamaged, a.txid)
	}
	return a, errA
}

// metaAt reads the meta page at an offset.
func (f *boltFile) metaAt(pos int64) (m boltMeta, err error) {
	var b [pageHeader + metaSize]byte
	if err := f.read(b[:], pos); err != nil {
		return m, err
	}
	p, ne := b[pageHeader:], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(p[:metaSize-8])
	switch {
	case ne.Uint32(p) != boltMagic:
		return m, fmt.Errorf("%w: it is no bbolt file", errDamaged)
	case ne.Uint32(p[4:]) != boltVersion:
		return m, fmt.Errorf("%w: bbolt version %d", errDamaged, ne.Uint32(p[4:]))
	case ne.Uint64(p[56:]) != sum.Sum64():
		return m, fmt.Errorf("%w: wrong checksum of its meta page", errDamaged)
	}
	return boltMeta{
		pageSize: ne.Uint32(p[8:]), root: ne.Uint64(p[16:]), freelist: ne.Uint64(p[32:]), pages: ne.Uint64(p[40:]), txid: ne.Uint64(p[48:]),
	}, nil
}

// freelist takes the free pages in.
func (f *boltFile) freelist(id uint64) error {
	b, flags, n, err := f.page(id)
	if err != nil {
		return err
	}
	if flags != freelistPage {
		return fmt.Errorf("%w: page %d is no list of free pages", errDamaged, id)
	}
	ids, count := b[pageHeader:], uint64(n)
	if n == 0xffff { // the first entry is the number of those that follow
		if len(ids) < 8 {
			return fmt.Errorf("%w: list of free pages cut short", errDamaged)
		}
		ids, count = ids[8:], binary.NativeEndian.Uint64(ids)
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("%w: %d free pages in a list of %d bytes", errDamaged, count, len(ids))
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		if err := f.use(binary.NativeEndian.Uint64(ids), 1); err != nil {
			return err
		}
	}
	return nil
}

// tree walks a bucket's pages from the root down. The first key of a page must
// be low, by which its parent knows it, and all keys must be less than high; nil
// is no bound.
func (f *boltFile) tree(id uint64, low, high []byte, depth, buckets int) error {
	if depth > maxDepth || buckets > maxBuckets {
		return fmt.Errorf("%w: page %d lies too deep", errDamaged, id)
	}
	b, flags, n, err := f.page(id)
	if err != nil {
		return err
	}
	switch {
	case flags == leafPage && (n > 0 || depth == 0):
		return f.leaf(b, n, low, high, buckets, false)
	case flags != branchPage || n < 2:
		return fmt.Errorf("%w: page %d of kind %#x has %d entries", errDamaged, id, flags, n)
	}
	ne := binary.NativeEndian
	keys, children := make([][]byte, n), make([]uint64, n)
	for i := range keys {
		at := pageHeader + i*elementSize
		e := b[at:]
		if keys[i], _, err = element(b, n, at, ne.Uint32(e), ne.Uint32(e[4:]), 0); err != nil {
			return err
		}
		children[i] = ne.Uint64(e[8:])
	}
	if err := ordered(keys, low, high); err != nil {
		return err
	}
	for i, child := range children {
		next := high
		if i+1 < n {
			next = keys[i+1]
		}
		if err := f.tree(child, keys[i], next, depth+1, buckets); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a leaf page, which an inline one is part of another's value.
func (f *boltFile) leaf(b []byte, n int, low, high []byte, buckets int, inline bool) error {
	ne := binary.NativeEndian
	keys := make([][]byte, n)
	for i := range keys {
		at := pageHeader + i*elementSize
		e := b[at:]
		key, value, err := element(b, n, at, ne.Uint32(e[4:]), ne.Uint32(e[8:]), ne.Uint32(e[12:]))
		if err != nil {
			return err
		}
		keys[i] = key
		switch flags := ne.Uint32(e); {
		case flags == 0:
		case flags != bucketLeaf || inline || len(value) < bucketHeader:
			return fmt.Errorf("%w: entry of kind %#x", errDamaged, flags)
		default:
			if err := f.bucket(value, buckets+1); err != nil {
				return err
			}
		}
	}
	return ordered(keys, low, high)
}

// bucket checks a bucket: a tree of its own, or one leaf in its value.
func (f *boltFile) bucket(value []byte, buckets int) error {
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return f.tree(root, nil, nil, 0, buckets)
	}
	b := value[bucketHeader:]
	if len(b) < pageHeader {
		return fmt.Errorf("%w: bucket of %d bytes", errDamaged, len(value))
	}
	n := int(binary.NativeEndian.Uint16(b[10:]))
	if binary.NativeEndian.Uint16(b[8:]) != leafPage || len(b) < pageHeader+n*elementSize {
		return fmt.Errorf("%w: bucket with %d entries in %d bytes", errDamaged, n, len(value))
	}
	return f.leaf(b, n, nil, nil, buckets, true)
}

// element is the key and the value of the entry at a place of a page, whose
// position counts from there.
func element(b []byte, n, at int, pos, ksize, vsize uint32) (key, value []byte, err error) {
	start := uint64(at) + uint64(pos)
	end := start + uint64(ksize) + uint64(vsize)
	if ksize == 0 || start < uint64(pageHeader+n*elementSize) || end > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: entry of %d and %d bytes at %d in %d bytes", errDamaged, ksize, vsize, start, len(b))
	}
	return b[start : start+uint64(ksize)], b[start+uint64(ksize) : end], nil
}

// ordered reports whether the keys rise from low to below high.
func ordered(keys [][]byte, low, high []byte) error {
	for i, k := range keys {
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 || i == 0 && low != nil && !bytes.Equal(low, k) || high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("%w: keys out of order", errDamaged)
		}
	}
	return nil
}

// page reads a page with its overflow and takes it in. Its table of entries is
// there.
func (f *boltFile) page(id uint64) (b []byte, flags uint16, n int, err error) {
	if id < 2 || id >= f.pages {
		return nil, 0, 0, fmt.Errorf("%w: page %d of %d", errDamaged, id, f.pages)
	}
	var h [pageHeader]byte
	if err := f.read(h[:], int64(id)*f.pageSize); err != nil {
		return nil, 0, 0, err
	}
	ne := binary.NativeEndian
	run := int64(ne.Uint32(h[12:])) + 1
	if ne.Uint64(h[:]) != id || run*f.pageSize > maxRun {
		return nil, 0, 0, fmt.Errorf("%w: page %d says that it is %d, with %d more", errDamaged, id, ne.Uint64(h[:]), run-1)
	}
	if err := f.use(id, uint64(run)); err != nil {
		return nil, 0, 0, err
	}
	flags, n = ne.Uint16(h[8:]), int(ne.Uint16(h[10:]))
	if flags != freelistPage && int64(pageHeader+n*elementSize) > run*f.pageSize {
		return nil, 0, 0, fmt.Errorf("%w: page %d with %d entries", errDamaged, id, n)
	}
	b = make([]byte, run*f.pageSize)
	return b, flags, n, f.read(b, int64(id)*f.pageSize)
}

// use gives n pages from id on their only place.
func (f *boltFile) use(id, n uint64) error {
	if id < 2 || id >= f.pages || n > f.pages-id {
		return fmt.Errorf("%w: pages %d to %d of %d", errDamaged, id, id+n-1, f.pages)
	}
	for i := id; i < id+n; i++ {
		if f.used[i] {
			return fmt.Errorf("%w: page %d is used twice", errDamaged, i)
		}
		f.used[i] = true
	}
	return nil
}

// read fills b. A file that ends before is damaged.
func (f *boltFile) read(b []byte, pos int64) error {
	_, err := f.r.ReadAt(b, pos)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends before %d bytes", errDamaged, pos+int64(len(b)))
	}
	return err
}
