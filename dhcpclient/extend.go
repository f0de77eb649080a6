// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Reboot asks to go on with addr (RFC 2131, 3.2 and 4.4.2, INIT-REBOOT): it
// broadcasts REQUEST again and again until a server answers or ctx is done. A
// refusal is a *NAKError. The Binding may hold another address than addr.
func (c *Client) Reboot(ctx context.Context, addr netip.Addr) (Binding, error) {
	x, err := c.begin()
	if err != nil {
		return Binding{}, err
	}
	x.progress("asking whether %v is still ours", addr)
	for n := 0; ; n++ {
		if n > 0 {
			x.repeated()
		}
		x.secs = secsSince(x.start)
		if err := x.send(x.requestReboot(x.header, addr), limitedBroadcast); err != nil {
			return Binding{}, err
		}
		wait, cancel := context.WithTimeout(ctx, backoff(n))
		b, err := x.granted(wait)
		cancel()
		if !errors.Is(err, errTimeout) {
			return b, err
		}
		if ctx.Err() != nil {
			return Binding{}, x.noAnswer(ctx)
		}
	}
}

// Renew sends one REQUEST to the server of b (RFC 2131, 4.4.5, RENEWING) and
// waits for an answer until ctx is done. A refusal is a *NAKError. The Binding
// may differ from b in everything, the address too. An error of the Conn's Send
// is wrapped, so that EPERM can be told apart.
func (c *Client) Renew(ctx context.Context, b Binding) (Binding, error) {
	return c.extend(ctx, b, b.Server)
}

// Rebind is Renew with a broadcast, which any server may answer (RFC 2131,
// 4.4.5, REBINDING).
func (c *Client) Rebind(ctx context.Context, b Binding) (Binding, error) {
	return c.extend(ctx, b, limitedBroadcast)
}

func (c *Client) extend(ctx context.Context, old Binding, to netip.Addr) (Binding, error) {
	x, err := c.begin()
	if err != nil {
		return Binding{}, err
	}
	if err := x.sendOnce(x.requestExtend(x.header, old.Address.Addr()), to); err != nil {
		return Binding{}, err
	}
	b, err := x.granted(ctx)
	switch {
	case errors.Is(err, errTimeout):
		return Binding{}, x.noAnswer(ctx)
	case err != nil:
		return Binding{}, err
	}
	if b.NextHopMAC == nil && b.Server == old.Server {
		b.NextHopMAC = old.NextHopMAC
	}
	return b, nil
}

// granted waits for an ACK or NAK of any server that may be listened to.
func (x *exchange) granted(ctx context.Context) (Binding, error) {
	r, err := x.next(ctx, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak)
	switch {
	case err != nil:
		return Binding{}, err
	case r.kind == dhcpv4.MessageTypeNak:
		return Binding{}, &NAKError{Server: r.server, Message: r.message}
	}
	r.Requested = x.start
	return r.Binding, nil
}

// Release gives b back (RFC 2131, 4.4.6). It goes to the server alone, from the
// source address of the Conn, which must be b's: servers ignore it otherwise.
// Nothing answers it.
func (c *Client) Release(b Binding) error {
	x, err := c.begin()
	if err != nil {
		return err
	}
	return x.sendOnce(x.release(x.header, b.Address.Addr(), b.Server, "released"), b.Server)
}

// sendOnce sends a message that is not sent again by itself.
func (x *exchange) sendOnce(m *dhcpv4.DHCPv4, to netip.Addr) error {
	err := x.Conn.Send(m, to)
	x.debug("DHCP message sent", m, to, err)
	if err != nil {
		return fmt.Errorf("%v to %v: %w", m.MessageType(), to, err)
	}
	return nil
}
