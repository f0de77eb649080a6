// SPDX-License-Identifier: Apache-2.0

package provision

import "fmt"

// fault is an error of a known kind (ErrGone, ErrBusy, …) whose message is for
// people: it names the object, says why, and what to do.
type fault struct {
	kind error
	msg  string
}

func (f *fault) Error() string { return f.msg }
func (f *fault) Unwrap() error { return f.kind }

func faultf(kind error, format string, args ...any) error {
	return &fault{kind: kind, msg: fmt.Sprintf(format, args...)}
}
