// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watcher tells what happens by itself to the links of the host namespace, and
// to children, their addresses and routes in every namespace the host has an id
// for (CreateChild and FindChild see to that, and the kernel when a link is moved
// there out of the host namespace), and to those namespaces. It costs one socket,
// however many namespaces there are, and holds none of them.
//
// Order: events come in the order in which the kernel made the changes. When a
// namespace dies, NamespaceGone is all that comes, without a ChildGone for each
// child in it. The id is free from then on: no event of a later namespace with
// the same id precedes it, but a CreateChild that runs at the same time can
// return the id before the Watcher has told of its last owner's end. So who
// hears of NamespaceGone looks whether the namespace it knows by that id is
// still there before believing it. ChildGone likewise: FindChild decides.
type Watcher struct {
	host  *NS // nil: the process's own namespace
	log   *slog.Logger
	ready chan struct{}

	receiveBuffer int
	conn          *os.File
	seq           uint32
	state         hostLinks
	own           *NS // the host namespace while Run runs
	ownID         int // by which events of the host namespace itself may come
	// dumping: a listing of all links is under way; again: another must follow.
	dumping, again bool
	emit           func(Event)
}

// NewWatcher watches from the process's own network namespace.
func NewWatcher(log *slog.Logger) *Watcher { return NewWatcherIn(log, nil) }

// NewWatcherIn watches from namespace host, which must stay open until Ready.
func NewWatcherIn(log *slog.Logger, host *NS) *Watcher {
	return &Watcher{host: host, log: log, ready: make(chan struct{}), receiveBuffer: 8 << 20}
}

// Ready is closed once every later change will be reported.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// Run watches until ctx ends, and then returns nil. emit is called from Run's
// own goroutine and must not block for long: what the socket can't hold
// meanwhile is lost, and reported as Resync. Links as they are at the start make
// no events. Run can be called once.
func (w *Watcher) Run(ctx context.Context, emit func(Event)) error {
	w.emit = emit
	host, err := w.openHost()
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer host.Close()
	w.own = host
	if err := host.Do(w.subscribe); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer w.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(pastDeadline) })()

	if err := w.startDump(); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	if err := w.receive(); ctx.Err() == nil {
		return fmt.Errorf("watch links: %w", err)
	}
	return nil
}

func (w *Watcher) openHost() (*NS, error) {
	if w.host != nil {
		return w.host.dup()
	}
	own, err := home()
	if err != nil {
		return nil, err
	}
	return own.dup()
}

// subscribe opens the socket in the thread's namespace.
func (w *Watcher) subscribe() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, w.receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, w.receiveBuffer)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1); err != nil {
		unix.Close(fd)
		return fmt.Errorf("listen to other namespaces (needs CAP_NET_BROADCAST): %w", err)
	}
	if err := filter(fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("filter rtnetlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	w.conn = os.NewFile(uintptr(fd), "rtnetlink")
	return nil
}

// receive reads until the socket fails or its deadline is set.
func (w *Watcher) receive() error {
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return err
	}
	buf, control := make([]byte, receiveBuffer), make([]byte, unix.CmsgSpace(4))
	for {
		var n, cn, flags int
		var from unix.Sockaddr
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, cn, flags, from, failed = unix.Recvmsg(int(fd), buf, control, 0)
			return failed != unix.EAGAIN || w.again && !w.dumping
		}); err != nil {
			return err
		}
		switch {
		case failed == unix.EINTR:
			continue
		case failed == unix.ENOBUFS, failed == nil && flags&unix.MSG_TRUNC != 0:
			w.log.Warn("rtnetlink events were lost, reading all links again")
			w.tell([]Event{{Kind: Resync}})
			w.again = true // once what is queued is read: until then the kernel drops answers too
		case failed == unix.EAGAIN:
			err = w.startDump()
		case failed != nil:
			return fmt.Errorf("receive from rtnetlink: %w", failed)
		default:
			if sa, ok := from.(*unix.SockaddrNetlink); ok && sa.Pid == 0 { // the kernel's
				err = w.datagram(buf[:n], source(control[:cn]))
			}
		}
		if err != nil {
			return err
		}
	}
}

// source is the id of the namespace that an event happened in; own: the host's.
func source(control []byte) int {
	if len(control) == 0 {
		return own
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return own
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return number(m.Data[:4])
		}
	}
	return own
}

func (w *Watcher) datagram(b []byte, nsid int) error {
	if nsid == w.ownID {
		nsid = own
	}
	for {
		h, data, rest, ok := nextMessage(b)
		if !ok {
			return nil
		}
		b = rest
		if err := w.message(h, data, nsid); err != nil {
			return err
		}
	}
}

func (w *Watcher) message(h unix.NlMsghdr, data []byte, nsid int) error {
	switch h.Type {
	case unix.RTM_NEWLINK:
		l, ok := parseLink(data)
		switch {
		case !ok || l.family != unix.AF_UNSPEC:
		case nsid == own:
			w.tell(w.state.put(l))
		case l.kind == "macvlan":
			w.emit(Event{Kind: ChildChanged, Name: l.name, Index: l.index, NSID: nsid, Up: l.up(), MAC: l.mac})
		}
	case unix.RTM_DELLINK:
		l, ok := parseLink(data)
		switch {
		case !ok || l.family != unix.AF_UNSPEC: // AF_BRIDGE: a port left its bridge
		case nsid == own:
			w.tell(w.state.remove(l.index))
		case l.kind == "macvlan":
			w.emit(Event{Kind: ChildGone, Name: l.name, Index: l.index, NSID: nsid})
		}
	case unix.RTM_DELADDR, unix.RTM_DELROUTE:
		switch index, ok := lost(h, data); {
		case !ok:
		case nsid != own:
			w.emit(Event{Kind: ChildChanged, Index: index, NSID: nsid})
		case w.state.isChild(index):
			w.tell([]Event{{Kind: ChildChanged, Index: index, NSID: own}})
		}
	case unix.RTM_NEWNSID:
		return w.learnOwnID()
	case unix.RTM_DELNSID:
		if id := parseNamespaceID(data); nsid == own && id >= 0 {
			w.emit(Event{Kind: NamespaceGone, NSID: id})
		}
	case unix.NLMSG_DONE:
		return w.endDump(h, data)
	case unix.NLMSG_ERROR:
		switch err := messageError(h, data); {
		case errors.Is(err, unix.ENOBUFS):
			w.again = true // the dump goes on, but may lack something
		case err != nil:
			return fmt.Errorf("ask rtnetlink: %w", err)
		}
	}
	if h.Flags&unix.NLM_F_DUMP_INTR != 0 {
		w.again = true
	}
	return nil
}

func (w *Watcher) tell(events []Event) {
	select {
	case <-w.ready:
		for _, e := range events {
			w.emit(e)
		}
	default: // the links as they are at the start
	}
}

// startDump asks for all links. The socket takes one dump at a time.
func (w *Watcher) startDump() error {
	w.dumping, w.again = true, false
	if err := w.learnOwnID(); err != nil {
		return err
	}
	w.state.mark()
	req := request(unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC), numberAttr(unix.IFLA_EXT_MASK, skipStats))
	return w.send(req)
}

// learnOwnID reads the id that the host namespace has for itself, if it has one:
// its own events come with that on Linux 6.1 (net/netlink/af_netlink.c,
// do_one_broadcast), and without on 6.18.
func (w *Watcher) learnOwnID() error {
	return inNS(w.own, func(c *conn) (err error) {
		w.ownID, err = c.namespaceID(w.own.FD())
		return err
	})
}

func (w *Watcher) endDump(h unix.NlMsghdr, data []byte) error {
	if err := messageError(h, data); err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	w.dumping = false
	if w.again || h.Flags&unix.NLM_F_DUMP_INTR != 0 {
		w.again = true // receive starts it
		return nil
	}
	w.tell(w.state.sweep())
	select {
	case <-w.ready:
	default:
		close(w.ready)
	}
	return nil
}

func (w *Watcher) send(req *nl.NetlinkRequest) error {
	w.seq++
	req.Seq = w.seq
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return failed != syscall.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("send to rtnetlink: %w", err)
	}
	return nil
}
