// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
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

// EngineDir is the directory with another engine's dockerd, containerd and docker
// than the installed ones: MVDHCP_ENGINE; empty: those that are installed.
func EngineDir() string { return os.Getenv("MVDHCP_ENGINE") }

// SearchPath is the PATH of an engine's processes: they run others by name.
func SearchPath() string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if dir := EngineDir(); dir != "" {
		path = dir + ":" + path
	}
	return path
}

// Tool is the path of a program, found in EngineDir, in PATH or where root's
// programs are. A missing one ends the test with the name of its package.
func (l *Lab) Tool(name string) string {
	l.tb.Helper()
	path, err := tool(name)
	if err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
	return path
}

func tool(name string) (string, error) {
	if dir := EngineDir(); dir != "" {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
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
