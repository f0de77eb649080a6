// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"mvdhcp/dhcpclient"
	"mvdhcp/provision"
)

// world is a simulated host on a simulated LAN with its DHCP server: the Host
// and the Clock of a keeper under test. One lock guards all of it.
type world struct {
	clock *simClock
	lan

	mu       sync.Mutex
	next     int // the next index or inode
	parents  map[string]*provision.Parent
	spaces   map[uint64]*space
	hostHas  map[netip.Addr]string
	resolv   map[provision.ResolvFile]string
	applied  int // calls of Apply
	applyErr error
	udpErr   error // of Send on a UDP socket
	removed  []string
	// makeParents lets EnsureParent make what is missing.
	makeParents bool
	// broken tells of what must never happen.
	broken []string
}

// space is a network namespace.
type space struct {
	id   provision.Namespace
	path bool // its path still leads to it
	live bool // the kernel still has it
	dead bool // the target's process has exited
	kids map[int]*kid
}

// kid is a macvlan child.
type kid struct {
	provision.Child
	space  *space
	parent string
	alias  string
	mode   provision.Mode
	cfg    provision.Config
	until  time.Duration // the kernel's valid_lft
}

var _ Host = (*world)(nil)

func newWorld() *world {
	w := &world{
		clock: newSimClock(), next: 10, parents: map[string]*provision.Parent{}, spaces: map[uint64]*space{},
		hostHas: map[netip.Addr]string{}, resolv: map[provision.ResolvFile]string{},
	}
	w.lan.init(w)
	return w
}

// has reports the address the kernel has on the child now.
func (k *kid) has(now time.Duration) netip.Prefix {
	if !k.cfg.Address.IsValid() || now >= k.until {
		return netip.Prefix{}
	}
	return k.cfg.Address
}

func (w *world) fault(format string, args ...any) {
	if len(w.broken) < 20 {
		w.broken = append(w.broken, fmt.Sprintf("%v: ", w.clock.Now())+fmt.Sprintf(format, args...))
	}
}

func (w *world) addParent(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.parents[name] = &provision.Parent{Name: name, Index: w.next, MAC: net.HardwareAddr{2, 0xff, 0, 0, 0, byte(w.next)}, MTU: 1500, Up: true, Carrier: true}
}

// addSpace makes a namespace.
func (w *world) addSpace(name string) provision.Namespace {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	s := &space{id: provision.Namespace{Path: "/run/netns/" + name, Dev: 4, Ino: uint64(w.next)}, path: true, live: true, kids: map[int]*kid{}}
	w.spaces[s.id.Ino] = s
	return s.id
}

// setParent changes a parent's carrier, and tells the keeper.
func (w *world) setParent(k *Keeper, name string, up bool) {
	w.mu.Lock()
	w.parents[name].Carrier = up
	w.mu.Unlock()
	kind := provision.ParentDown
	if up {
		kind = provision.ParentUp
	}
	k.Observe(provision.Event{Kind: kind, Name: name})
}

// removeParent takes a parent away with all its children, as the kernel does.
func (w *world) removeParent(k *Keeper, name string) {
	w.mu.Lock()
	delete(w.parents, name)
	events := []provision.Event{{Kind: provision.ParentGone, Name: name}}
	for _, s := range w.spaces {
		for i, c := range s.kids {
			if c.parent == name {
				delete(s.kids, i)
				events = append(events, provision.Event{Kind: provision.ChildGone, Index: i, NSID: c.NSID})
			}
		}
	}
	w.mu.Unlock()
	for _, ev := range events {
		k.Observe(ev)
	}
}

// killSpace ends a namespace.
func (w *world) killSpace(ino uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.spaces[ino]
	s.path, s.live, s.kids = false, false, map[int]*kid{}
}

// kids returns all children, by name of namespace and interface.
func (w *world) kids() map[string]kid {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]kid{}
	for _, s := range w.spaces {
		for _, c := range s.kids {
			all[s.id.Path[len("/run/netns/"):]+"/"+c.Name] = *c
		}
	}
	return all
}

func (w *world) lookup(ns provision.Namespace) (*space, error) {
	s := w.spaces[ns.Ino]
	if s == nil || !s.path || s.id.Path != ns.Path {
		return nil, fmt.Errorf("namespace %s: %w", ns.Path, provision.ErrGone)
	}
	return s, nil
}

func (w *world) kid(ns provision.Namespace, c provision.Child) (*kid, error) {
	s, err := w.lookup(ns)
	if err != nil {
		return nil, err
	}
	k := s.kids[c.Index]
	for _, o := range s.kids {
		if c.Index == 0 && bytes.Equal(o.MAC, c.MAC) { // the index is not known yet
			k = o
		}
	}
	if k == nil || !bytes.Equal(k.MAC, c.MAC) {
		return nil, fmt.Errorf("%s in %s: %w", c.Name, ns.Path, provision.ErrGone)
	}
	return k, nil
}

func (w *world) Alive(_ Target, ns provision.Namespace) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.lookup(ns)
	return err == nil && !s.dead
}

func (w *world) Moved(ns provision.Namespace) (provision.Namespace, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.spaces[ns.Ino]
	if s == nil || !s.live {
		return ns, provision.ErrGone
	}
	s.path = true
	return s.id, nil
}

func (w *world) Again(t Target, ns provision.Namespace) (provision.Namespace, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.spaces {
		if t.Kind == TargetNetNS && s.path && s.id.Path == ns.Path {
			return s.id, nil
		}
	}
	return ns, provision.ErrGone
}

func (w *world) TempNamespace() (provision.Namespace, func(), error) {
	ns := w.addSpace("temp")
	return ns, func() { w.killSpace(ns.Ino) }, nil
}

func (w *world) FreeName(ns provision.Namespace, taken func(string) bool) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.lookup(ns)
	if err != nil {
		return "", err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		if !taken(name) && !s.names(name) {
			return name, nil
		}
	}
}

func (s *space) names(name string) bool {
	for _, c := range s.kids {
		if c.Name == name {
			return true
		}
	}
	return false
}

func (w *world) Parent(name string) (provision.Parent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parents[name]
	if p == nil {
		return provision.Parent{}, fmt.Errorf("%s: %w", name, provision.ErrGone)
	}
	return *p, nil
}

func (w *world) EnsureParent(name string) (provision.Parent, bool, error) {
	p, err := w.Parent(name)
	if err != nil && w.makeParents {
		w.addParent(name)
		w.mu.Lock()
		w.parents[name].Ours = true
		w.mu.Unlock()
		p, err = w.Parent(name)
		return p, true, err
	}
	return p, false, err
}

func (w *world) RemoveParent(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed = append(w.removed, name)
	delete(w.parents, name)
	return nil
}

func (w *world) CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (provision.Child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.lookup(ns)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return provision.Child{}, err
	}
	if s.names(spec.Name) {
		return provision.Child{}, fmt.Errorf("%s exists: %w", spec.Name, provision.ErrBusy)
	}
	for _, o := range w.spaces {
		for _, c := range o.kids {
			if c.parent == spec.Parent.Name && bytes.Equal(c.MAC, spec.MAC) {
				return provision.Child{}, fmt.Errorf("MAC %v on %s: %w", spec.MAC, c.parent, provision.ErrBusy)
			}
		}
	}
	w.next++
	c := &kid{
		Child: provision.Child{Name: spec.Name, Index: w.next, MAC: spec.MAC, NSID: int(ns.Ino)},
		space: s, parent: spec.Parent.Name, alias: spec.Alias, mode: spec.Mode,
	}
	s.kids[c.Index] = c
	return c.Child, nil
}

func (w *world) FindChild(ns provision.Namespace, c provision.Child) (provision.Child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return c, err
	}
	return k.Child, nil
}

func (w *world) DeleteChild(ns provision.Namespace, c provision.Child) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.spaces {
		if k := s.kids[c.Index]; s.live && s.id.Ino == ns.Ino && k != nil && bytes.Equal(k.MAC, c.MAC) {
			delete(s.kids, c.Index)
			return nil
		}
	}
	return provision.ErrGone
}

func (w *world) SetMode(ns provision.Namespace, c provision.Child, m provision.Mode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		k.mode = m
	}
	return err
}

func (w *world) Apply(ns provision.Namespace, c provision.Child, cfg provision.Config) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		err = w.applyErr
	}
	if err != nil {
		return err
	}
	now := w.clock.Now()
	for _, s := range w.spaces {
		for _, o := range s.kids {
			if o != k && o.has(now).Addr() == cfg.Address.Addr() && o.has(now).IsValid() {
				w.fault("%v on %s while %s has it", cfg.Address, s.id.Path, o.space.id.Path)
			}
		}
	}
	w.applied++
	k.cfg, k.until = cfg, now+cfg.Lifetime
	if cfg.Lifetime == provision.Forever {
		k.until = never
	}
	if g := w.srv.grants[k.MAC.String()]; g == nil || g.addr != cfg.Address.Addr() || g.until != never && k.until > g.until+time.Second {
		w.fault("%v put on %s until %v, the server granted %+v", cfg.Address, ns.Path, k.until, g)
	}
	return nil
}

func (w *world) Unconfigure(ns provision.Namespace, c provision.Child) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err == nil {
		k.cfg, k.until = provision.Config{}, 0
	}
	return err
}

func (w *world) HasAddress(ns provision.Namespace, c provision.Child, p netip.Prefix) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	return err == nil && k.has(w.clock.Now()) == p, err
}

func (w *world) HostHas(addr netip.Addr) (string, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, ok := w.hostHas[addr]
	return name, ok, nil
}

func (w *world) Neighbour(ns provision.Namespace, c provision.Child, _ netip.Addr) (net.HardwareAddr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.kid(ns, c)
	return w.srv.mac, err
}

func (w *world) ReadResolv(f provision.ResolvFile) ([]byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.resolv[f]
	return []byte(s), ok, nil
}

func (w *world) WriteResolv(f provision.ResolvFile, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolv[f] = string(content)
	return nil
}

func (w *world) RestoreResolv(f provision.ResolvFile, content []byte, existed bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.resolv[f] = string(content); !existed {
		delete(w.resolv, f)
	}
	return nil
}

// simClock is the time since the host's boot, on the clock of the test.
type simClock struct {
	boot time.Time
	id   string
}

func newSimClock() *simClock { return &simClock{boot: time.Now().Add(-time.Hour), id: "boot"} }

func (c *simClock) Now() time.Duration { return time.Since(c.boot) }
func (c *simClock) Wall() time.Time    { return time.Now() }
func (c *simClock) BootID() string     { return c.id }

func (c *simClock) NewAlarm() (Alarm, error) {
	a := &simAlarm{clock: c, c: make(chan struct{}, 1)}
	a.t = time.AfterFunc(1<<62, a.ring)
	return a, nil
}

type simAlarm struct {
	clock *simClock
	t     *time.Timer
	c     chan struct{}
}

func (a *simAlarm) ring() {
	select {
	case a.c <- struct{}{}:
	default:
	}
}

func (a *simAlarm) Set(at time.Duration) error {
	a.t.Reset(max(at-a.clock.Now(), 0))
	return nil
}
func (a *simAlarm) C() <-chan struct{} { return a.c }
func (a *simAlarm) Close() error       { a.t.Stop(); return nil }

// memStore is a Store in memory that remembers the order of what was written.
type memStore struct {
	mu     sync.Mutex
	data   map[string][]byte
	wrote  []string // "id state"
	putErr error
}

func newMemStore() *memStore { return &memStore{data: map[string][]byte{}} }

func (s *memStore) Put(r Record) error {
	b, err := r.Encode()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err = errors.Join(err, s.putErr); err != nil {
		return err
	}
	s.data[r.ID] = b
	if len(s.wrote) < 1000 {
		s.wrote = append(s.wrote, string(r.State))
	}
	return nil
}

func (s *memStore) PutLater(r Record) { s.Put(r) }

func (s *memStore) Delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.data, id)
	return nil
}

func (s *memStore) All() (rs []Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.data)) {
		r, derr := DecodeRecord(s.data[id])
		if derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		rs = append(rs, r)
	}
	return rs, err
}

func (s *memStore) Info() (string, int64) { return "memory", int64(len(s.data)) }
func (s *memStore) Close() error          { return nil }

var _ dhcpclient.Conn = (*simConn)(nil)
