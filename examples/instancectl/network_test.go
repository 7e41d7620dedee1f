// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// pemOf writes a server's certificate into a file for -ca.
func pemOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	return writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
}

// TestNetworkAdvice: what is wrong on the way to a server is said as such, whether it is
// the issuer or the attester, and by what is to be typed.
func TestNetworkAdvice(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	known := pemOf(t, server)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "https://"), ":")
	self, _ := newSelf(t)
	for name, tt := range map[string]struct {
		url, ca, word, advice string
	}{
		"unknown CA":   {server.URL, "", "unknown_ca", "-ca FILE"},
		"other host":   {"https://localhost:" + port, known, "certificate", "another host"},
		"no TLS":       {strings.Replace(plain.URL, "http:", "https:", 1), "", "", "does not speak TLS"},
		"nobody":       {"https://" + closedPort(t), "", "", "nothing listens there"},
		"no host":      {"https://no-such-host.invalid", "", "", "no host of this name"},
		"the right CA": {server.URL, known, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var ca []string
			if tt.ca != "" {
				ca = []string{"-ca", tt.ca}
			}
			for _, args := range [][]string{
				{"token", "-issuer", tt.url, "-self", self, "-json"},
				{"attest", "-name", "k", "-attester", tt.url},
			} {
				r := instancectl(t, append(append(args, "-store", "soft", "-client-id", "c"), ca...)...)
				if r.status != 1 || !strings.Contains(r.stderr, tt.advice) || strings.Contains(r.stderr, "-ca FILE") != (name == "unknown CA") {
					t.Errorf("%q: status %d, %s", args, r.status, r.stderr)
				}
				if args[0] == "token" && tt.word != "" && tokenLines(t, r)[0].Error != tt.word {
					t.Errorf("%q: %s, want %q", args, r.stdout, tt.word)
				}
			}
		})
	}
	if isUnknownCA(x509.HostnameError{}) || !isUnknownCA(x509.UnknownAuthorityError{}) {
		t.Error("errors of certificates are mixed up")
	}
}
