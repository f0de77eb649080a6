// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"mvdhcp/dhcpclient"
)

// EventKind names what happened to a lease or a parent.
type EventKind string

// The events.
const (
	EvBound      EventKind = "bound"
	EvRenewed    EventKind = "renewed"
	EvRebound    EventKind = "rebound"
	EvChanged    EventKind = "changed"
	EvNAK        EventKind = "nak"
	EvConflict   EventKind = "conflict"
	EvExpired    EventKind = "expired"
	EvReleased   EventKind = "released"
	EvKept       EventKind = "kept"
	EvHealed     EventKind = "healed"
	EvLost       EventKind = "lost"
	EvFailed     EventKind = "failed"
	EvParentDown EventKind = "parent-down"
	EvParentUp   EventKind = "parent-up"
	EvParentGone EventKind = "parent-gone"
	EvRepaired   EventKind = "repaired"
	// A parent has another name, MTU or MAC.
	EvParentRenamed EventKind = "parent-renamed"
	EvParentChanged EventKind = "parent-changed"
)

// Event is one change. Record is the lease after it, without an ID for a
// parent's event.
type Event struct {
	Time     time.Time
	Kind     EventKind
	Parent   string
	Record   Record
	Old, New map[string]string
	Message  string
}

// hub counts events and hands them to subscribers, none of which it waits for.
type hub struct {
	log    *slog.Logger
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	counts map[EventKind]int64
}

type subscriber struct {
	c    chan Event
	lost int
}

// eventBuffer is how far a reader may fall behind, in events.
const eventBuffer = 1024

func newHub(log *slog.Logger) *hub {
	return &hub{log: log, subs: map[*subscriber]struct{}{}, counts: map[EventKind]int64{}}
}

func (h *hub) emit(e Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case EvNAK, EvConflict, EvExpired, EvFailed, EvParentDown, EvParentGone, EvRepaired:
		level = slog.LevelWarn
	}
	attrs := []any{"event", e.Kind, "parent", e.Parent}
	if r := e.Record; r.ID != "" {
		attrs = append(attrs, "lease", r.ID, "identity", r.Spec.Identity, "target", r.Target.Name, "ifname", r.Spec.Ifname, "mac", r.Spec.MAC.String())
		if r.Binding != nil {
			attrs = append(attrs, "address", r.Binding.Address.String(), "server", r.Binding.Server.String())
		}
	}
	for f, v := range e.New {
		attrs = append(attrs, f, fmt.Sprintf("%s -> %s", e.Old[f], v))
	}
	h.log.Log(context.Background(), level, e.Message, attrs...)

	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[e.Kind]++
	for s := range h.subs {
		if s.lost > 0 {
			lost := Event{Time: e.Time, Kind: EvLost, Message: fmt.Sprintf("reader too slow: %d events lost", s.lost)}
			select {
			case s.c <- lost:
				s.lost = 0
			default:
			}
		}
		select {
		case s.c <- e:
		default:
			s.lost++
		}
	}
}

// Subscribe returns a channel of all events from now on, and the function that
// ends it. A reader that falls behind gets an EvLost event that counts what it
// missed.
func (k *Keeper) Subscribe() (<-chan Event, func()) {
	s := &subscriber{c: make(chan Event, eventBuffer)}
	k.hub.mu.Lock()
	k.hub.subs[s] = struct{}{}
	k.hub.mu.Unlock()
	return s.c, func() {
		k.hub.mu.Lock()
		delete(k.hub.subs, s)
		k.hub.mu.Unlock()
	}
}

// EventCounts returns how often each event has happened since the start.
func (k *Keeper) EventCounts() map[EventKind]int64 {
	k.hub.mu.Lock()
	defer k.hub.mu.Unlock()
	return maps.Clone(k.hub.counts)
}

// diffBindings returns what an ACK changed, by field, as a person would read it.
func diffBindings(a, b *dhcpclient.Binding) (old, new map[string]string) {
	old, new = map[string]string{}, map[string]string{}
	field := func(name, x, y string) {
		if x != y {
			old[name], new[name] = x, y
		}
	}
	field("address", a.Address.String(), b.Address.String())
	field("router", a.Router.String(), b.Router.String())
	field("routes", fmt.Sprint(a.Routes), fmt.Sprint(b.Routes))
	field("mtu", fmt.Sprint(a.MTU), fmt.Sprint(b.MTU))
	field("dns", fmt.Sprint(a.DNS), fmt.Sprint(b.DNS))
	field("domain", a.Domain, b.Domain)
	field("search", fmt.Sprint(a.Search), fmt.Sprint(b.Search))
	field("ntp", fmt.Sprint(a.NTP), fmt.Sprint(b.NTP))
	field("lease", a.Lease.String(), b.Lease.String())
	return old, new
}
