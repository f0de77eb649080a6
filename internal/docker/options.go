// SPDX-License-Identifier: Apache-2.0

package docker

import "time"

// Options are what an attach takes as well, as the user typed it. Plugin.Check
// judges them by the rules of attach, and in its words.
type Options struct {
	Parent        string
	Mode          string
	Identity      string
	ClientID      string
	Hostname      string
	RequestIP     string
	VendorClass   string
	UserClass     string
	Metric        int
	Routes        string
	MTU           int
	ConflictCheck string
	AllowServers  []string
	DenyServers   []string
	Timeout       time.Duration
}
