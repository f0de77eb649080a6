// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMachineID(t *testing.T) {
	host, own := strings.Repeat("a", 32), strings.Repeat("b", 32)
	for name, tc := range map[string]struct{ host, own, want string }{
		"the host's":           {host: host + "\n", want: host},
		"its own first":        {host: host, own: own + "\n", want: own},
		"its own alone":        {own: own, want: own},
		"the host's is empty":  {host: "\n", own: own, want: own},
		"its own is cut short": {host: host, own: "b", want: host},
		"systemd's first boot": {host: "uninitialized\n", want: ""},
		"neither: one is made": {want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			etc := filepath.Join(dir, "etc-machine-id")
			for file, text := range map[string]string{etc: tc.host, filepath.Join(dir, "machine-id"): tc.own} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			first, err := machineID(etc, dir)
			if err != nil {
				t.Fatal(err)
			}
			again, err := machineID(etc, dir)
			if err != nil || again != first || len(first) != 32 || tc.want != "" && first != tc.want {
				t.Errorf("%q, then %q, %v; want %q", first, again, err, tc.want)
			}
		})
	}
}
