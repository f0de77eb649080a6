// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// frameLen is more than a reply on an Ethernet link can have; longer frames are
// passed over.
const frameLen = 4096

// socket is a non-blocking socket on the runtime's poller.
type socket struct {
	file   *os.File
	raw    syscall.RawConn
	name   string
	buf    []byte
	oob    []byte
	closed atomic.Bool
}

// newSocket takes fd over, and closes it on failure.
func newSocket(fd int, name string) (*socket, error) {
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &socket{file: f, raw: raw, name: name, buf: make([]byte, frameLen), oob: make([]byte, 128)}, nil
}

// message is what one recvmsg left in buf and oob.
type message struct {
	data, oob []byte
	from      unix.Sockaddr
}

// receive hands messages to use until it returns true, or until ctx is done.
// Errors of the link (it went down) and of the network (an ICMP error came) pass.
func (s *socket) receive(ctx context.Context, use func(message) bool) error {
	deadline, _ := ctx.Deadline() // without one: the zero time, which is none
	if err := s.file.SetReadDeadline(deadline); err != nil && !s.closed.Load() {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // or it would cut the next receive short
		}
	}()
	for {
		if s.closed.Load() {
			return fmt.Errorf("%s: %w", s.name, net.ErrClosed)
		}
		m, err := s.recvmsg()
		switch {
		case s.closed.Load():
		case err == nil:
			if m.data != nil && use(m) {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w", s.name, ctx.Err())
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			<-ctx.Done()
			return fmt.Errorf("%s: %w", s.name, ctx.Err())
		case !passing(err):
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
}

// shut ends what is under way on s, and reports false when that was done before.
func (s *socket) shut() bool {
	if s.closed.Swap(true) {
		return false
	}
	_ = s.file.SetReadDeadline(time.Unix(1, 0))
	return true
}

// recvmsg waits for one message. One that did not fit has no data.
func (s *socket) recvmsg() (message, error) {
	var m message
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, from, err := unix.Recvmsg(int(fd), s.buf, s.oob, 0)
		for err == unix.EINTR {
			n, oobn, flags, from, err = unix.Recvmsg(int(fd), s.buf, s.oob, 0)
		}
		if err == unix.EAGAIN {
			return false
		}
		failed = err
		if err == nil && flags&unix.MSG_TRUNC == 0 {
			m = message{data: s.buf[:n], oob: s.oob[:oobn], from: from}
		}
		return true
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", failed)
	}
	return m, err
}

func passing(err error) bool {
	for _, e := range []unix.Errno{unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ECONNREFUSED, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sendTries and sendPause bound the patience with a queue that is full: 1 + 2 +
// 4 + 8 ms.
const (
	sendTries = 5
	sendPause = time.Millisecond
)

// send calls sendmsg with b until the link's queue has room.
func (s *socket) send(b, oob []byte, to unix.Sockaddr) error {
	for n := range sendTries {
		if s.closed.Load() {
			return fmt.Errorf("%s: %w", s.name, net.ErrClosed)
		}
		var failed error
		err := s.raw.Write(func(fd uintptr) bool {
			for failed = unix.EINTR; failed == unix.EINTR; {
				failed = unix.Sendmsg(int(fd), b, oob, to, 0)
			}
			return true
		})
		if err == nil {
			err = os.NewSyscallError("sendmsg", failed)
		}
		full := errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ENETDOWN):
			return fmt.Errorf("%s: link is down: %w", s.name, err)
		case !full || n == sendTries-1:
			return fmt.Errorf("%s: %w", s.name, err)
		}
		time.Sleep(sendPause << n)
	}
	return nil // not reached
}

// attach makes the kernel drop what code does not pass.
func attach(fd int, code []bpf.Instruction) error {
	raw, err := bpf.Assemble(code)
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("attach filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

// openLink opens an AF_PACKET socket on a link. It is made with protocol 0,
// which receives nothing, so that no frame passes by the filter, where there is
// one, before bind names the protocol. Protocol 0 stays like that: it sends.
func openLink(ifindex int, protocol uint16, filter []bpf.Instruction, name string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, os.NewSyscallError("socket", err))
	}
	if protocol != 0 {
		err = listenLink(fd, ifindex, protocol, filter)
	}
	if err != nil {
		closeLater(func() { _ = unix.Close(fd) })
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return newSocket(fd, name)
}

func listenLink(fd, ifindex int, protocol uint16, filter []bpf.Instruction) error {
	if filter != nil {
		if err := attach(fd, filter); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return os.NewSyscallError("PACKET_AUXDATA", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: ifindex}))
}

// roomFor sets the limit of what waits in the socket.
func (s *socket) roomFor(bytes int) error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	})
	if err == nil {
		err = os.NewSyscallError("SO_RCVBUFFORCE", failed)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

func checkMAC(mac net.HardwareAddr, name string) error {
	if len(mac) != 6 {
		return fmt.Errorf("%s: MAC address %q has %d bytes instead of 6", name, mac, len(mac))
	}
	return nil
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
