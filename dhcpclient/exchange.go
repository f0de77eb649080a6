// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// broadcastAfter is the number of unanswered transmissions after which replies
// are asked for as broadcasts: a unicast one may be what gets lost on its way to
// an interface without an address.
const broadcastAfter = 2

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// errTimeout is returned by next when its context is done.
var errTimeout = errors.New("timeout")

// exchange is one dialogue with servers under one transaction id.
type exchange struct {
	*Client
	header
	start      time.Time
	unanswered int
	heard      []string
}

// reply is a message of a server that this exchange may act on. Binding is set
// in all but a NAK.
type reply struct {
	Binding
	kind    dhcpv4.MessageType
	server  netip.Addr
	message string
}

func (c *Client) begin() (*exchange, error) {
	if err := c.valid(); err != nil {
		return nil, err
	}
	x := &exchange{Client: c}
	x.restart()
	return x, nil
}

// restart begins a new transaction. What was learned of the link stays.
func (x *exchange) restart() {
	_, _ = rand.Read(x.xid[:]) // never fails
	x.secs = 0
	x.start = time.Now()
}

// send sends m. A link that is down or full for the moment is as good as a lost
// frame: it is noted, and the retransmission that follows makes up for it.
func (x *exchange) send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	err := x.Conn.Send(m, to)
	x.debug("DHCP message sent", m, to, err)
	if err == nil {
		return nil
	}
	for _, passing := range []error{syscall.ENETDOWN, syscall.ENOBUFS, syscall.EAGAIN, syscall.ENETUNREACH} {
		if errors.Is(err, passing) {
			x.note(err.Error())
			return nil
		}
	}
	return fmt.Errorf("%v: %w", m.MessageType(), err)
}

// repeated counts a transmission that got no answer.
func (x *exchange) repeated() {
	if x.unanswered++; x.unanswered >= broadcastAfter {
		x.broadcast = true
	}
}

// next returns the next reply of one of the kinds wanted, or errTimeout once ctx
// is done. Whatever else arrives neither ends the wait nor prolongs it.
func (x *exchange) next(ctx context.Context, wanted ...dhcpv4.MessageType) (reply, error) {
	for {
		got, err := x.Conn.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return reply{}, errTimeout
			}
			return reply{}, fmt.Errorf("waiting for a DHCP reply: %w", err)
		}
		if !x.ours(got.Message) {
			continue
		}
		x.debug("DHCP message received", got.Message, got.From, nil)
		kind := got.Message.MessageType()
		if !slices.Contains(wanted, kind) {
			continue
		}
		r := reply{kind: kind}
		if r.server, err = x.server(got.Message); err == nil && kind != dhcpv4.MessageTypeNak {
			r.Binding, err = newBinding(got.Message)
			r.NextHopMAC = got.FromMAC
		}
		if err != nil {
			x.note(fmt.Sprintf("%s from %v ignored (%v)", strings.ToLower(kind.String()), sender(r, got), err))
			continue
		}
		if kind == dhcpv4.MessageTypeNak {
			r.message = printable(string(got.Message.Options.Get(dhcpv4.OptionMessage)))
		}
		return r, nil
	}
}

// ours reports whether m answers this exchange (RFC 2131, 4.4.1; RFC 6842, 3).
func (x *exchange) ours(m *dhcpv4.DHCPv4) bool {
	if m == nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != x.xid || !bytes.Equal(m.ClientHWAddr, x.MAC) {
		return false
	}
	id, echoed := m.Options[dhcpv4.OptionClientIdentifier.Code()]
	return !echoed || bytes.Equal(id, x.ClientID)
}

// server returns the server that m comes from, if it may be listened to.
func (x *exchange) server(m *dhcpv4.DHCPv4) (netip.Addr, error) {
	id, ok := serverID(m)
	switch {
	case !ok:
		return netip.Addr{}, errors.New("no usable server identifier")
	case slices.Contains(x.DenyServers, id):
		return id, errors.New("denied")
	case len(x.AllowServers) > 0 && !slices.Contains(x.AllowServers, id):
		return id, errors.New("not allowed")
	}
	return id, nil
}

func sender(r reply, got Received) netip.Addr {
	if r.server.IsValid() {
		return r.server
	}
	return got.From
}

// maxHeard bounds what an error tells of refused replies.
const maxHeard = 6

func (x *exchange) note(what string) {
	if len(x.heard) < maxHeard && !slices.Contains(x.heard, what) {
		x.heard = append(x.heard, what)
	}
}

func (x *exchange) progress(format string, args ...any) {
	if x.Progress != nil {
		x.Progress(fmt.Sprintf(format, args...))
	}
}

func (x *exchange) debug(what string, m *dhcpv4.DHCPv4, peer netip.Addr, err error) {
	log := x.logger()
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []any{"mac", x.MAC.String(), "type", m.MessageType(), "xid", m.TransactionID, "peer", peer}
	if m.OpCode == dhcpv4.OpcodeBootReply {
		attrs = append(attrs, "yiaddr", m.YourIPAddr)
	} else {
		attrs = append(attrs, "ciaddr", m.ClientIPAddr)
	}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	log.Debug(what, attrs...)
}

func (c *Client) logger() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.Default()
}

// noAnswer is ErrNoAnswer with what was heard, and the end of ctx as its cause.
func (x *exchange) noAnswer(ctx context.Context) error {
	return &noAnswerError{heard: x.heard, cause: ctx.Err()}
}

type noAnswerError struct {
	heard []string
	cause error
}

func (e *noAnswerError) Error() string {
	if len(e.heard) == 0 {
		return ErrNoAnswer.Error()
	}
	return ErrNoAnswer.Error() + ": " + strings.Join(e.heard, ", ")
}

// Refused reports whether err is an ErrNoAnswer although there were answers: all
// of them were refused, and err says why.
func Refused(err error) bool {
	var e *noAnswerError
	return errors.As(err, &e) && len(e.heard) > 0
}

func (e *noAnswerError) Unwrap() []error { return []error{ErrNoAnswer, e.cause} }
