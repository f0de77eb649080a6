// SPDX-License-Identifier: Apache-2.0

package dhcpclient

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// fuzz is how far T1 and T2 are moved at random, either way, as a part of their
// length (RFC 2131, 4.4.5).
const fuzz = 0.02

// leaseTimes reads options 51, 58 and 59. A T1 or T2 that does not hold
// 0 < T1 < T2 < lease is replaced by its default, half and seven eighths of the
// lease (RFC 2131, 4.4.5).
func leaseTimes(o dhcpv4.Options) (lease, t1, t2 time.Duration, err error) {
	lease, ok := seconds(o, dhcpv4.OptionIPAddressLeaseTime)
	if !ok {
		return 0, 0, 0, errors.New("no lease time")
	}
	if lease == 0 {
		return 0, 0, 0, errors.New("lease time of 0")
	}
	if lease == Infinite {
		return lease, lease / 2, lease / 8 * 7, nil
	}
	t2, ok = seconds(o, dhcpv4.OptionRebindingTimeValue)
	if !ok || t2 == 0 || t2 >= lease {
		t2 = lease / 8 * 7
	}
	t1, ok = seconds(o, dhcpv4.OptionRenewTimeValue)
	if !ok || t1 == 0 || t1 >= t2 {
		t1 = min(lease/2, t2/7*4)
	}
	if f1, f2 := fuzzed(t1), fuzzed(t2); 0 < f1 && f1 < f2 && f2 < lease {
		t1, t2 = f1, f2
	}
	return lease, t1, t2, nil
}

func fuzzed(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)*fuzz*(2*rand.Float64()-1))
}

func seconds(o dhcpv4.Options, code dhcpv4.OptionCode) (time.Duration, bool) {
	v := o.Get(code)
	if len(v) != 4 {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint32(v)) * time.Second, true
}

// Retransmission of DISCOVER and REQUEST: 1 s at first, doubled up to 64 s,
// each 25 % more or less. RFC 2131, 4.1, starts at 4 s, which on a LAN costs a
// lost frame three seconds for nothing.
const (
	firstWait = time.Second
	lastWait  = 64 * time.Second
	jitter    = 0.25
)

// backoff is how long the answer to transmission n is awaited (n from 0).
func backoff(n int) time.Duration {
	d := lastWait
	if n < 6 {
		d = firstWait << n
	}
	return d + time.Duration(float64(d)*jitter*(2*rand.Float64()-1))
}

// secsSince is the secs field of a message sent now.
func secsSince(start time.Time) uint16 {
	return uint16(min(time.Since(start)/time.Second, math.MaxUint16))
}
