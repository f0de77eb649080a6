// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// ReadIdle reads a file that a process with one thread writes over and over,
// while the process waits for something new: never half written, and with all
// that follows from what the process has answered. After patience, or when the
// process has ended, the file is taken as it is.
func ReadIdle(pid int, path string, patience time.Duration) ([]byte, error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		before, asleep := schedule(pid)
		data, err := os.ReadFile(path)
		after, still := schedule(pid)
		if asleep && still && after == before || before == "" || time.Now().After(end) {
			return data, err
		}
	}
}

// schedule tells how often a process has gone to rest, "" when it has ended,
// and whether it sleeps or is stopped (proc_pid_status(5)): in the middle of a
// write it runs or waits for the disk.
func schedule(pid int) (rests string, asleep bool) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "State":
			state := strings.TrimSpace(value)[:1]
			if state == "Z" || state == "X" {
				return "", false
			}
			asleep = strings.Contains("ST", state)
		case "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches":
			rests += value
		}
	}
	return rests, asleep
}
