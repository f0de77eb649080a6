// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// conn is one rtnetlink socket. The kernel answers a request while it is being
// sent, so plain blocking calls never wait for more than the kernel's own work.
// Not safe for concurrent use.
type conn struct {
	fd  int
	seq uint32
}

// errInterrupted: what was dumped changed meanwhile (NLM_F_DUMP_INTR).
var errInterrupted = errors.New("the kernel's answer changed while it was read")

// receiveBuffer is above what the kernel puts into one datagram of a dump
// (net/netlink/af_netlink.c: at most 32 KiB).
const receiveBuffer = 32 << 10

// buffers are for one answer each: sockets come and go with every step.
var buffers = sync.Pool{New: func() any { return new([receiveBuffer]byte) }}

// dial opens an rtnetlink socket in the thread's current namespace.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	// Each makes answers better where the kernel knows it; none is needed.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, option, 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind an rtnetlink socket: %w", err)
	}
	return &conn{fd: fd}, nil
}

// dial opens an rtnetlink socket in namespace n.
func (n *NS) dial() (*conn, error) {
	var c *conn
	err := n.Do(func() (err error) {
		c, err = dial()
		return err
	})
	return c, err
}

func (c *conn) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// request starts a request of this type; attributes are appended to it.
func request(typ, flags int, header nl.NetlinkRequestData, attrs ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	req.AddData(header)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

// do sends req and calls each, when not nil, with the payload of every answer.
func (c *conn) do(req *nl.NetlinkRequest, each func(data []byte)) error {
	c.seq++
	req.Seq = c.seq
	dump := req.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if !dump {
		req.Flags |= unix.NLM_F_ACK
	}
	for {
		err := unix.Sendto(c.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("send to rtnetlink: %w", err)
		}
	}
	return c.answers(each)
}

func (c *conn) answers(each func(data []byte)) error {
	buf := buffers.Get().(*[receiveBuffer]byte)
	defer buffers.Put(buf)
	interrupted := false
	for {
		n, _, err := unix.Recvfrom(c.fd, buf[:], unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from rtnetlink: %w", err)
		}
		if n > len(buf) {
			return fmt.Errorf("receive from rtnetlink: an answer of %d bytes", n)
		}
		for b := buf[:n]; ; {
			h, data, rest, ok := nextMessage(b)
			if !ok {
				break
			}
			b = rest
			if h.Seq != c.seq {
				continue
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if err := messageError(h, data); err != nil {
					return err
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			default:
				if each != nil {
					each(data)
				}
			}
		}
	}
}

// dump lists what parse makes of the answers of a dump that no change disturbed.
func dump[T any](c *conn, req *nl.NetlinkRequest, parse func(data []byte) (T, bool)) (all []T, err error) {
	req.Flags |= unix.NLM_F_DUMP
	for range 10 {
		all = all[:0]
		err = c.do(req, func(data []byte) {
			if v, ok := parse(data); ok {
				all = append(all, v)
			}
		})
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return all, err
}

// kernelError is the kernel's refusal with its own words, when it gave some.
type kernelError struct {
	errno unix.Errno
	text  string
}

func (e *kernelError) Error() string {
	if e.text == "" {
		return e.errno.Error()
	}
	return fmt.Sprintf("%s (%s)", e.errno.Error(), e.text)
}

func (e *kernelError) Unwrap() error { return e.errno }

// messageError reads NLMSG_ERROR and NLMSG_DONE; nil: acknowledged.
func messageError(h unix.NlMsghdr, data []byte) error {
	if len(data) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(data))
	if errno == 0 {
		return nil
	}
	e := &kernelError{errno: unix.Errno(errno)}
	tlvs := data[4:]
	if h.Type == unix.NLMSG_ERROR {
		if len(tlvs) < unix.SizeofNlMsghdr {
			return e
		}
		tlvs = tlvs[unix.SizeofNlMsghdr:] // NETLINK_CAP_ACK: the header alone comes back
	}
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 {
		for typ, value := range attributes(tlvs) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				e.text = text(value)
			}
		}
	}
	return e
}

func nextMessage(b []byte) (h unix.NlMsghdr, data, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return h, nil, nil, false
	}
	h.Len = binary.NativeEndian.Uint32(b)
	h.Type = binary.NativeEndian.Uint16(b[4:])
	h.Flags = binary.NativeEndian.Uint16(b[6:])
	h.Seq = binary.NativeEndian.Uint32(b[8:])
	h.Pid = binary.NativeEndian.Uint32(b[12:])
	if h.Len < unix.SizeofNlMsghdr || int64(h.Len) > int64(len(b)) {
		return h, nil, nil, false
	}
	data = b[unix.SizeofNlMsghdr:h.Len]
	rest = b[min(align(int(h.Len)), len(b)):]
	return h, data, rest, true
}
