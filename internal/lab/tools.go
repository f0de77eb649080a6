// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// packageOf names the Debian package of each program that a lab may run.
var packageOf = map[string]string{
	"busybox":         "busybox-static",
	"containerd":      "containerd",
	"dhcpd":           "isc-dhcp-server",
	"dnsmasq":         "dnsmasq-base",
	"docker":          "docker.io",
	"dockerd":         "docker.io",
	"docker-compose":  "docker-compose",
	"ip":              "iproute2",
	"kea-dhcp4":       "kea-dhcp4-server",
	"nft":             "nftables",
	"systemctl":       "systemd",
	"systemd-analyze": "systemd",
	"udhcpd":          "udhcpd",
}

// Tool is the path of a program, found in PATH or where root's programs are. A
// missing one ends the test with the name of its package.
func (l *Lab) Tool(name string) string {
	l.tb.Helper()
	path, err := tool(name)
	if err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
	return path
}

func tool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	pkg := packageOf[name]
	if pkg == "" {
		return "", fmt.Errorf("program %s is missing", name)
	}
	return "", fmt.Errorf("program %s is missing: apt-get install %s", name, pkg)
}
