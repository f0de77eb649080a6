// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// version answers as an engine does.
func version(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(map[string]string{"Version": "1.2.3 at " + r.URL.Path}) //nolint:errcheck // the client sees it
}

// TestHosts reaches an engine in each way that DOCKER_HOST can name.
func TestHosts(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(version))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(version))
	defer secure.Close()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: http.HandlerFunc(version)}
	defer local.Close()
	go local.Serve(l) //nolint:errcheck // ends with Close
	certs := t.TempDir()
	clientCertificate(t, certs)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(certs, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host, env, certs, verify string
		want, err                string
	}{
		"socket":                {host: "unix://" + socket, want: "1.2.3 at /version"},
		"socket of DOCKER_HOST": {env: "unix://" + socket, want: "1.2.3 at /version"},
		"the typed one counts":  {host: "unix://" + socket, env: "unix:///nonexistent", want: "1.2.3 at /version"},
		"tcp":                   {host: "tcp://" + plain.Listener.Addr().String(), want: "1.2.3 at /version"},
		"tcp below a path":      {host: "tcp://" + plain.Listener.Addr().String() + "/engine/", want: "1.2.3 at /engine/version"},
		"TLS":                   {host: "tcp://" + secure.Listener.Addr().String(), certs: certs, verify: "1", want: "1.2.3 at /version"},
		"TLS, not verified":     {host: "tcp://" + secure.Listener.Addr().String(), certs: certs, want: "1.2.3 at /version"},
		"no certificates":       {host: "tcp://" + secure.Listener.Addr().String(), certs: "/nonexistent", verify: "1", err: "DOCKER_CERT_PATH /nonexistent"},
		"nobody there":          {host: "unix:///nonexistent", err: "no such file"},
		"another scheme":        {host: "ssh://host", err: `DOCKER_HOST "ssh://host": give unix:///PATH or tcp://HOST:PORT`},
		"no scheme":             {host: "docker.sock", err: "give unix:///PATH"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DOCKER_HOST", c.env)
			t.Setenv("DOCKER_CERT_PATH", c.certs)
			t.Setenv("DOCKER_TLS_VERIFY", c.verify)
			got, err := EngineVersion(context.Background(), c.host)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}

// clientCertificate makes the pair that an engine would know a client by.
func clientCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
