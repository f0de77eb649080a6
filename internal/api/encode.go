// SPDX-License-Identifier: Apache-2.0

package api

import "encoding/json"

// MarshalJSON writes lists that are empty as [], never as null.
func (l Lease) MarshalJSON() ([]byte, error) {
	type plain Lease
	l.Routes = filled(l.Routes)
	l.DNS, l.Search, l.NTP = filled(l.DNS), filled(l.Search), filled(l.NTP)
	return json.Marshal(plain(l))
}

// MarshalJSON writes RFC 3339, and null for the zero time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.Time.MarshalJSON()
}

// MarshalJSON is as for Lease.
func (o ProbeOffer) MarshalJSON() ([]byte, error) {
	type plain ProbeOffer
	o.DNS = filled(o.DNS)
	return json.Marshal(plain(o))
}

// MarshalJSON is as for Lease.
func (r ProbeResult) MarshalJSON() ([]byte, error) {
	type plain ProbeResult
	r.Offers = filled(r.Offers)
	return json.Marshal(plain(r))
}

// MarshalJSON is as for Lease.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	s.Parents = filled(s.Parents)
	return json.Marshal(plain(s))
}

func filled[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
