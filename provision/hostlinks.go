// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"net"
	"time"
)

// pastDeadline ends a read that is under way.
var pastDeadline = time.Unix(1, 0)

// hostLinks is what the Watcher remembers of the host's links, to tell what
// changed. Its zero value is empty.
type hostLinks struct {
	links map[int]*hostLink // by index
}

type hostLink struct {
	name string
	mac  string
	mtu  int
	live bool // up, with carrier
	// child: it is a macvlan link, as those that CreateChild makes here.
	child bool
	seen  bool // since mark
}

// put takes in a link as it is now and returns what that changed.
func (s *hostLinks) put(l link) []Event {
	if s.links == nil {
		s.links = map[int]*hostLink{}
	}
	now := &hostLink{name: l.name, mac: string(l.mac), mtu: l.mtu, live: l.up() && l.carrier(), child: l.kind == "macvlan", seen: true}
	before := s.links[l.index]
	s.links[l.index] = now
	event := func(kind EventKind) Event { return Event{Kind: kind, Name: now.name, Index: l.index, NSID: -1} }

	var events []Event
	if before == nil {
		before = &hostLink{name: now.name, mac: now.mac, mtu: now.mtu}
		events = append(events, event(ParentAdded))
	}
	if before.name != now.name {
		e := event(ParentRenamed)
		e.OldName = before.name
		events = append(events, e)
	}
	if before.mac != now.mac || before.mtu != now.mtu {
		e := event(ParentChanged)
		e.MTU, e.OldMTU = now.mtu, before.mtu
		e.MAC, e.OldMAC = net.HardwareAddr(now.mac), net.HardwareAddr(before.mac)
		events = append(events, e)
	}
	switch {
	case now.live && !before.live:
		events = append(events, event(ParentUp))
	case before.live && !now.live:
		events = append(events, event(ParentDown))
	}
	return events
}

// isChild reports whether the link could be a child.
func (s *hostLinks) isChild(index int) bool {
	l := s.links[index]
	return l != nil && l.child
}

func (s *hostLinks) remove(index int) []Event {
	l := s.links[index]
	if l == nil {
		return nil
	}
	delete(s.links, index)
	return []Event{l.gone(index)}
}

// mark and sweep enclose a listing of all links: those it didn't have are gone.
func (s *hostLinks) mark() {
	for _, l := range s.links {
		l.seen = false
	}
}

func (s *hostLinks) sweep() []Event {
	var events []Event
	for index, l := range s.links {
		if !l.seen {
			events = append(events, s.remove(index)...)
		}
	}
	return events
}

func (l *hostLink) gone(index int) Event {
	return Event{Kind: ParentGone, Name: l.name, Index: index, NSID: -1}
}
