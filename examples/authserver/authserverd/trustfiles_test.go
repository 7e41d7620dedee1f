// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

func write(t *testing.T, path string, content any) {
	t.Helper()
	text, ok := content.(string)
	if !ok {
		encoded, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		text = string(encoded)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTrustFilesAreReadAgain: what changes in the files, or in the JWK Set at a URL,
// is in force after an update; what cannot be used changes nothing, for itself alone.
func TestTrustFilesAreReadAgain(t *testing.T) {
	for _, place := range []string{"file", "URL"} {
		t.Run(place, func(t *testing.T) {
			dir := t.TempDir()
			jwks, policy := filepath.Join(dir, "jwks.json"), filepath.Join(dir, "policy.json")
			attesterKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			key, err := keystore.FromSigner(attesterKey)
			if err != nil {
				t.Fatal(err)
			}
			thumbprint, err := keystore.Thumbprint(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			of := func(key any) jose.JSONWebKeySet {
				return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: thumbprint}}}
			}
			good := of(&attesterKey.PublicKey)
			write(t, jwks, good)
			write(t, policy, `{"max_age": "24h"}`)

			files := trustFiles{jwks: jwks, policy: policy}
			if place == "URL" {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, jwks) }))
				defer server.Close()
				files.jwks = server.URL + "/jwks"
			}
			listening := httptest.NewUnstartedServer(nil)
			known := authserver.Config{
				Issuer: "http://" + listening.Listener.Addr().String(), Clients: []authserver.Client{{ID: "abca-client"}}, Logger: slog.New(slog.DiscardHandler),
			}
			if err := files.read(t.Context(), &known); err != nil {
				t.Fatal(err)
			}
			server, err := authserver.New(known)
			if err != nil {
				t.Fatal(err)
			}
			listening.Config.Handler = server
			listening.Start()
			defer listening.Close()

			var logged bytes.Buffer
			log := slog.New(slog.NewTextHandler(&logged, nil))
			served := func() bool {
				t.Helper()
				c, err := client.New(t.Context(), client.Config{
					Issuer: listening.URL, ClientID: "abca-client", Store: softkey.New(), Attester: client.SelfAttester{Key: key},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, err = c.Token(t.Context())
				return err == nil
			}
			if !served() {
				t.Fatal("not served at the start")
			}
			another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			for i, step := range []struct {
				file    string
				content any
				served  bool
				log     string
			}{
				{policy, `{"require_oemboot": true}`, false, "policy has changed"},
				{policy, `{"require_oemboot": `, false, "cannot be read again"},
				{policy, `{"max_age": "24h"}`, true, "policy has changed"},
				{jwks, of(&another.PublicKey), false, "trusted attesters have changed"},
				{jwks, `{"keys": []}`, false, "stays in force"},
				{jwks, good, true, "trusted attesters have changed"},
				{jwks, `not JSON`, true, "stays in force"},
				{jwks, good, true, ""},
				{jwks, `not JSON`, true, "stays in force"},
				{policy, `{"require_oemboot": true}`, false, "policy has changed"}, // beside keys that are wrong
				{policy, `{`, false, "-policy: "},                                  // both are
				{jwks, of(&another.PublicKey), false, "trusted attesters have changed"},
				{jwks, good, false, "trusted attesters have changed"},
				{policy, `{"max_age": "24h"}`, true, "policy has changed"},
			} {
				write(t, step.file, step.content)
				logged.Reset()
				known = files.update(t.Context(), server, known, log)
				if got := served(); got != step.served || !strings.Contains(logged.String(), step.log) || (step.log == "") != (logged.Len() == 0) {
					t.Errorf("step %d: served: %v, want %v; logged %q, want %q", i, got, step.served, logged.String(), step.log)
				}
			}
		})
	}
}

// TestAwait: the attester may be started after the authorization server.
func TestAwait(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	later := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			t.Cleanup(func() { listener.Close() })
			go func() { _ = http.Serve(listener, http.NotFoundHandler()) }()
		}
		later <- err
	})
	files := trustFiles{jwks: "http://" + address + "/jwks"}
	files.await(t.Context())
	if err := <-later; err != nil {
		t.Skip(err) // the port is another program's now
	}
	if _, err := readSource(t.Context(), files.jwks); errors.As(err, new(*net.OpError)) {
		t.Errorf("it did not wait: %v", err)
	}
}
