// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"mvdhcp/provision"
)

// world is a simulated host on a simulated LAN with its DHCP server: the Host
// and the Clock of a keeper under test. One lock guards all of it.
type world struct {
	clock *simClock
	lan

	mu        sync.Mutex
	next      int // the next index or inode
	parents   map[string]*provision.Parent
	spaces    map[uint64]*space
	hostHas   map[netip.Addr]string
	resolv    map[provision.ResolvFile]string
	applied   int    // calls of Apply
	repaired  int    // things put back by Repair
	looks     int    // calls of FindChild
	onFind    func() // called first by FindChild, with the lock
	applyErr  error
	createErr error // of CreateChild
	udpErr    error // of Send on a UDP socket
	removed   []string
	// unconfigureFor is how long Unconfigure takes.
	unconfigureFor time.Duration
	// makeParents lets EnsureParent make what is missing.
	makeParents bool
	// busyParents makes RemoveParent find children on the parent.
	busyParents bool
	// tellRemoved hears of what RemoveParent removes.
	tellRemoved *Keeper
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
	down   bool
	// followed are the calls of FollowMTU.
	followed [][2]int
	router   netip.Addr // of a default route that somebody else made
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
	w.dropParent(name)
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

func (w *world) Enter(provision.Namespace) (Host, func(), error) { return w, func() {}, nil }

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

func (w *world) ParentAt(index int) (provision.Parent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parents {
		if p.Index == index {
			return *p, nil
		}
	}
	return provision.Parent{}, fmt.Errorf("index %d: %w", index, provision.ErrGone)
}

func (w *world) EnsureParent(name string) (provision.Parent, bool, error) {
	p, err := w.Parent(name)
	if err == nil && !p.Up {
		w.mu.Lock()
		w.parents[name].Up, w.parents[name].Carrier = true, true
		w.mu.Unlock()
		p, err = w.Parent(name)
	}
	w.mu.Lock()
	makes := w.makeParents
	w.mu.Unlock()
	if err != nil && makes {
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
	busy := w.busyParents
	if !busy {
		w.removed = append(w.removed, name)
		delete(w.parents, name)
	}
	w.mu.Unlock()
	if busy {
		return fmt.Errorf("%s: %w", name, provision.ErrBusy)
	}
	if w.tellRemoved != nil {
		w.tellRemoved.Observe(provision.Event{Kind: provision.ParentGone, Name: name})
	}
	return nil
}

func (w *world) CreateChild(ctx context.Context, ns provision.Namespace, spec provision.ChildSpec) (provision.Child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.lookup(ns)
	if err = errors.Join(err, ctx.Err(), w.createErr); err != nil {
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
		Child: provision.Child{Name: spec.Name, Index: w.next, MAC: spec.MAC, NSID: int(ns.Ino), Parent: spec.Parent.Index, Mode: spec.Mode},
		space: s, parent: spec.Parent.Name, alias: spec.Alias, mode: spec.Mode,
	}
	s.kids[c.Index] = c
	return c.Child, nil
}

func (w *world) FindChild(ns provision.Namespace, c provision.Child) (provision.Child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.onFind != nil {
		w.onFind()
	}
	w.looks++
	k, err := w.kid(ns, c)
	if errors.Is(err, provision.ErrGone) { // it may have another index by now
		k, err = w.kid(ns, provision.Child{Name: c.Name, MAC: c.MAC})
	}
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

// hostSpace is the host's own namespace.
func (w *world) hostSpace() *space {
	for _, s := range w.spaces {
		if s.id.Path == "/run/netns/host" {
			return s
		}
	}
	w.next++
	s := &space{id: provision.Namespace{Path: "/run/netns/host", Dev: 4, Ino: uint64(w.next)}, path: true, live: true, kids: map[int]*kid{}}
	w.spaces[s.id.Ino] = s
	return s
}

func (w *world) Park(ns provision.Namespace, c provision.Child, mtu int) (provision.Namespace, provision.Child, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, err := w.kid(ns, c)
	if err != nil {
		return ns, c, err
	}
	host := w.hostSpace()
	w.move(k, host)
	return host.id, k.Child, nil
}

// move takes a child to another namespace, as the kernel does.
func (w *world) move(k *kid, to *space) {
	delete(k.space.kids, k.Index)
	w.next++
	k.Index, k.NSID, k.space, k.cfg = w.next, int(to.id.Ino), to, provision.Config{}
	to.kids[k.Index] = k
}

func (w *world) CreateParked(spec provision.ChildSpec, mtu int) (provision.Namespace, provision.Child, error) {
	w.mu.Lock()
	host := w.hostSpace().id
	w.mu.Unlock()
	c, err := w.CreateChild(context.Background(), host, spec)
	return host, c, err
}

func (w *world) DeleteParked(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	host := w.hostSpace()
	for i, k := range host.kids {
		if k.Name == name {
			delete(host.kids, i)
		}
	}
	return nil
}
