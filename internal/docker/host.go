// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-connections/tlsconfig"
)

// defaultHost is where an engine listens when nothing else is said.
const defaultHost = "unix:///var/run/docker.sock"

// dialer reaches an engine.
type dialer func(ctx context.Context, _, _ string) (net.Conn, error)

// engineHost returns how to reach the engine at host ("" takes DOCKER_HOST, or
// the default socket), and the path that its API is below. As for the docker
// command, DOCKER_CERT_PATH is the directory of ca.pem, cert.pem and key.pem for
// a tcp host, whose name is verified when DOCKER_TLS_VERIFY is set.
func engineHost(host string) (dialer, string, error) {
	host = cmp.Or(host, os.Getenv("DOCKER_HOST"), defaultHost)
	scheme, addr, _ := strings.Cut(host, "://")
	var d net.Dialer
	switch {
	case addr == "":
	case scheme == "unix":
		return func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", addr) }, "", nil
	case scheme == "tcp" || scheme == "http" || scheme == "https":
		addr, base, _ := strings.Cut(addr, "/")
		if base = strings.TrimSuffix(base, "/"); base != "" {
			base = "/" + base
		}
		config, err := engineTLS()
		switch {
		case err != nil:
			return nil, "", err
		case config == nil && scheme == "https":
			config = tlsconfig.ClientDefault()
		}
		if config == nil {
			return func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }, base, nil
		}
		t := tls.Dialer{Config: config}
		return func(ctx context.Context, _, _ string) (net.Conn, error) { return t.DialContext(ctx, "tcp", addr) }, base, nil
	}
	return nil, "", fmt.Errorf("DOCKER_HOST %q: give unix:///PATH or tcp://HOST:PORT", host)
}

// engineTLS is what DOCKER_CERT_PATH asks for, nil: no TLS.
func engineTLS() (*tls.Config, error) {
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		return nil, nil
	}
	config, err := tlsconfig.Client(tlsconfig.Options{
		CAFile:             filepath.Join(dir, "ca.pem"),
		CertFile:           filepath.Join(dir, "cert.pem"),
		KeyFile:            filepath.Join(dir, "key.pem"),
		InsecureSkipVerify: os.Getenv("DOCKER_TLS_VERIFY") == "",
		ExclusiveRootPools: true,
	})
	if err != nil {
		return nil, fmt.Errorf("DOCKER_CERT_PATH %s: %w", dir, err)
	}
	return config, nil
}
