// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// handler brings requests to a server without a network.
type handler struct{ http.Handler }

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response, nil
}

// TestProvisionedLife: what is shipped to a device works for as long as was said,
// on the shelf or in use, and no longer.
func TestProvisionedLife(t *testing.T) {
	const life = 5 * 365 * 24 * time.Hour
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), (*world).listSRK)
	provisioned, err := w.server.Provision(clientID, w.ek, life)
	if err != nil {
		t.Fatal(err)
	}
	store, err := tpm.Open(t.Context(), tpm.Config{TPM: w.d.tpm, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Import(t.Context(), "provisioned", provisioned.Key); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return w.now }
	server, err := authserver.New(authserver.Config{
		Issuer: "https://as.example.com", Clients: []authserver.Client{{ID: clientID}}, AttesterKeys: w.server.JWKS(),
		Challenges: &authserver.ChallengeConfig{Endpoint: true}, Logger: slog.New(slog.DiscardHandler), Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	shipped := w.now
	for after, works := range map[time.Duration]bool{
		0: true, 30 * 24 * time.Hour: true, life - time.Hour: true, life + time.Minute: false,
	} {
		w.now = shipped.Add(after)
		c, err := client.New(t.Context(), client.Config{
			Issuer: "https://as.example.com", ClientID: clientID, Store: store, KeyName: "provisioned",
			Attester: client.PushAttester{Attestation: provisioned.Attestation}, Base: handler{server}, Clock: clock,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token(t.Context()); (err == nil) != works {
			t.Errorf("%v after it was shipped: %v", after, err)
		}
		c.Close()
	}
}

// TestProvisionedCertificate: an attestation does not outlive the certificates that
// it is verified with.
func TestProvisionedCertificate(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), (*world).listSRK)
	verifier := w.verifier()
	rootKey := newKey(t, elliptic.P256())
	root := certificate(t, nil, rootKey, rootKey)
	w.configure(func(cfg *attester.Config) {
		cfg.Evidence = verifier
		cfg.Key.Certificates = []*x509.Certificate{certificate(t, root, rootKey, cfg.Key.Key.(*ecdsa.PrivateKey))}
		w.now = cfg.Key.Certificates[0].NotAfter.Add(-time.Hour)
	})
	if _, err := w.server.Provision(clientID, w.ek, time.Hour); err != nil {
		t.Errorf("as long as the certificate: %v", err)
	}
	if _, err := w.server.Provision(clientID, w.ek, time.Hour+time.Second); err == nil || !strings.Contains(err.Error(), "certificate for") {
		t.Errorf("longer than the certificate: %v", err)
	}
}
