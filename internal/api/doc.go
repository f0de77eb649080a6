// SPDX-License-Identifier: Apache-2.0

// Package api is how people and programs talk to the keeper: JSON over HTTP/1.1
// on a unix socket. Server puts a Service (the keeper) on a listener that
// Listen made; Client is the same Service seen from the other end of the
// socket. Validate methods hold what can be judged of a request without looking
// at the host, for both ends.
//
// Calls that take long (attach, probe) and events answer with a stream of JSON
// lines; the last line of the former is the result or the error. A client that
// closes its writing half calls the request off and can still read what became
// of it.
//
// The keeper's daemon and the commands import this package; it imports no more
// of this module than package lease.
package api
