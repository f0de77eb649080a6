// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"errors"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Offsets of the fixed fields that option overload reuses (RFC 2131, 2).
const (
	snameStart   = 44
	fileStart    = 108
	cookieStart  = 236
	optionsStart = 240
)

// maxMessage is the most that one UDP datagram over IPv4 carries.
const maxMessage = 65535 - 20 - 8

// Values of option 52 (RFC 2132, 9.3).
const (
	overloadFile  = 1
	overloadSname = 2
)

// Decode parses one DHCP message. A missing END option is forgiven, options in
// the file and sname fields are read as option 52 says (RFC 2131, 4.1), and an
// option that appears several times is put together in the order options, file,
// sname (RFC 3396, 7). The result shares no memory with b.
func Decode(b []byte) (*dhcpv4.DHCPv4, error) {
	if len(b) < optionsStart {
		return nil, fmt.Errorf("DHCP message of %d bytes is too short", len(b))
	}
	if len(b) > maxMessage {
		return nil, fmt.Errorf("DHCP message of %d bytes is too long", len(b))
	}
	// An END behind the message ends options that lack one, and is never
	// reached in those that do not.
	m, err := dhcpv4.FromBytes(append(b[:len(b):len(b)], dhcpv4.OptionEnd.Code()))
	if err != nil {
		return nil, fmt.Errorf("DHCP message: %w", err)
	}
	overload := m.Options.Get(dhcpv4.OptionOptionOverload)
	if overload == nil {
		return m, nil
	}
	if len(overload) != 1 || overload[0] < overloadFile || overload[0] > overloadFile|overloadSname {
		return nil, errors.New("DHCP message: bad option overload")
	}
	if overload[0]&overloadFile != 0 {
		if err := m.Options.FromBytes(b[fileStart:cookieStart]); err != nil {
			return nil, fmt.Errorf("DHCP options in file field: %w", err)
		}
		m.BootFileName = ""
	}
	if overload[0]&overloadSname != 0 {
		if err := m.Options.FromBytes(b[snameStart:fileStart]); err != nil {
			return nil, fmt.Errorf("DHCP options in sname field: %w", err)
		}
		m.ServerHostName = ""
	}
	return m, nil
}
