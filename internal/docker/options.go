// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"fmt"
	"time"
)

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

// What --ipam-opt and -o read in the same way. An error says what to give.

// readOnOff sets off by on or off.
func readOnOff(v string, off *bool) error {
	if v != "on" && v != "off" {
		return errors.New("give on or off")
	}
	*off = v == "off"
	return nil
}

// readTimeout sets d by a duration from minTimeout to most; 0: without bound.
func readTimeout(v string, most time.Duration, d *time.Duration) (err error) {
	if *d, err = time.ParseDuration(v); err == nil && *d >= minTimeout && (most == 0 || *d <= most) {
		return nil
	}
	if most == 0 {
		return fmt.Errorf("give a duration of %v or more, such as 10s", minTimeout)
	}
	return fmt.Errorf("give a duration from %v to %v, such as 10s", minTimeout, most)
}

// readReleaseDelay sets d by a duration up to most, or to -1 by never.
func readReleaseDelay(v string, most time.Duration, d *time.Duration) (err error) {
	if v == "never" {
		*d = -1
		return nil
	}
	if *d, err = time.ParseDuration(v); err != nil || *d < 0 || *d > most {
		return errors.New("give a duration such as 5s, 0s or never")
	}
	return nil
}
