// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClosure(t *testing.T) {
	const index = `kernel/net/llc/llc.ko:
kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko
kernel/net/8021q/8021q.ko: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko
kernel/drivers/hw/virtio-rng.ko:
`
	for _, c := range []struct {
		test  string
		names []string
		want  []string
		err   string
	}{
		{"none", nil, nil, ""},
		{"alone", []string{"llc"}, []string{"kernel/net/llc/llc.ko"}, ""},
		{"each once", []string{"bridge", "8021q"}, []string{
			"kernel/net/bridge/bridge.ko", "kernel/net/802/stp.ko.xz", "kernel/net/llc/llc.ko",
			"kernel/net/8021q/8021q.ko"}, ""},
		{"dash or underscore", []string{"virtio_rng"}, []string{"kernel/drivers/hw/virtio-rng.ko"}, ""},
		{"missing", []string{"llc", "ipvlan"}, nil, "no module ipvlan"},
	} {
		t.Run(c.test, func(t *testing.T) {
			got, err := closure(index, c.names)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestFind(t *testing.T) {
	_, err := find("busybox", "no-such-program", emulator, "bridge")
	if err == nil || !strings.HasSuffix(err.Error(), "needs no-such-program: apt-get install -y --no-install-recommends no-such-program") {
		t.Errorf("error %v, want one that names what is missing alone", err)
	}
	packageOf["no-such-program"] = "its-package"
	defer delete(packageOf, "no-such-program")
	if _, err := find("no-such-program"); err == nil || !strings.HasSuffix(err.Error(), " its-package") {
		t.Errorf("error %v, want the package's name", err)
	}
}

func TestLibraries(t *testing.T) {
	paths, err := find("ip", "busybox")
	if err != nil {
		t.Fatal(err)
	}
	files, err := libraries(t.Context(), paths["ip"])
	if err != nil {
		t.Fatal(err)
	}
	linker := false
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
		linker = linker || strings.Contains(f, "/ld-linux")
	}
	if !linker {
		t.Errorf("no dynamic linker among %v", files)
	}
	if files, err := libraries(t.Context(), "/etc/passwd"); err != nil || files != nil {
		t.Errorf("a text file has the libraries %v, error %v", files, err)
	}
}
