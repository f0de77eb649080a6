// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// serverFiles is where the servers' configurations are, from the module's root.
const serverFiles = "testdata/servers"

// view is what a configuration's template sees.
type view struct {
	ServerOptions
	If     string
	Dir    string
	Subnet netip.Prefix
	Mask   netip.Addr
}

// render writes the configuration of that name for a server into a file.
func render(name, file string, s *Server) error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	t, err := template.New(name).Funcs(template.FuncMap{
		"seconds": func(d time.Duration) int { return seconds(min(d, Forever)) },
		"join":    func(a []netip.Addr) string { return joinAddrs(a, ", ") },
	}).ParseFiles(filepath.Join(root, serverFiles, name))
	if err != nil {
		return err
	}
	var b strings.Builder
	subnet := s.Options.LAN.Subnet
	if err := t.Execute(&b, view{s.Options, ServerIf, s.dir, subnet, maskOf(subnet)}); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
