// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for what keeps children of a parent from getting and
// keeping leases: in the kernel, on the wire, and on the host around them. cmd
// prints its findings; daemon asks for the likely cause when an attach got no
// answer. The work enters at Examine and at Likely. Nothing it looks at is
// changed, but that it makes a child of the parent for one question and takes it
// away again.
package doctor
