// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// direct hands requests to the attester without a network, and notes their paths.
type direct struct {
	w     *world
	paths []string
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	d.paths = append(d.paths, strings.TrimPrefix(r.URL.Path, "/abca/"))
	recorder := httptest.NewRecorder()
	d.w.server.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// TestSDK: this attester and this repository's device understand each other, on
// both TPMs; on swtpm with an endorsement certificate that others have issued.
func TestSDK(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (device tpmtest.Device, roots func(w *world) [][]byte){
		"simulator": func(t *testing.T) (tpmtest.Device, func(*world) [][]byte) {
			sim := tpmtest.Simulator(t)
			return sim, func(w *world) [][]byte {
				if _, err := w.d.maker.Endorse(w.d.tpm); err != nil {
					t.Fatal(err)
				}
				return [][]byte{w.d.maker.Root.Raw}
			}
		},
		"swtpm": func(t *testing.T) (tpmtest.Device, func(*world) [][]byte) {
			sw := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
			return sw, func(*world) [][]byte { return sw.CA(t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			device, roots := open(t)
			conn := &redial{t: t, device: device}
			w := newWorld(t, conn, nil)
			w.now = time.Now()
			w.registry = object{"attest_unlisted_devices": true}
			w.roots = nil
			for _, der := range roots(w) {
				certificate, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				w.roots = append(w.roots, certificate)
			}
			w.start()
			testSDK(t, w)
		})
	}
}

func testSDK(t *testing.T, w *world) {
	store, err := tpm.Open(t.Context(), tpm.Config{
		TPM: w.d.tpm, Dir: t.TempDir(),
		EventLog: func(context.Context) ([]byte, error) { return w.d.log, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d := &direct{w: w}
	attester := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: d}}
	const once = "challenge client-attestation"
	attest := func(alg, paths string) (object, error) {
		t.Helper()
		key, err := store.Open(t.Context(), alg)
		if err != nil {
			if key, err = store.CreateKey(t.Context(), alg, tpm.KeyOptions{Algorithm: alg}); err != nil {
				t.Fatal(err)
			}
		}
		d.paths = nil
		attestation, err := attester.Attest(t.Context(), client.AttestRequest{ClientID: clientID, Key: key, Clock: func() time.Time { return w.now }})
		if got := strings.Join(d.paths, " "); got != paths {
			t.Errorf("%s: requests %s, want %s", alg, got, paths)
		}
		if err != nil {
			return nil, err
		}
		_, claims := w.open(attestation)
		return claims, nil
	}

	// The attestation key enrols once, for all instance keys.
	claims, err := attest("ES256", "challenge tpm/attest tpm/secret client-attestation")
	if err != nil {
		t.Fatalf("%v, logged %v", err, w.lastRecord())
	}
	if claims["swname"] != "gateway-os" || claims["oemboot"] != true || w.lastRecord()["firmware_version"] != firmwareV2 {
		t.Errorf("claims %v, logged %v", claims, w.lastRecord())
	}
	for _, alg := range []string{"ES256", "ES384"} {
		if _, err := attest(alg, once); err != nil {
			t.Errorf("%s: %v, logged %v", alg, err, w.lastRecord())
		}
	}

	// The attester has another CA now: it does not know the device any more.
	old := w.ca
	if w.ca, err = evidence.CreateCA(w.now); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, err := attest("ES256", once+" tpm/attest tpm/secret "+once); err != nil {
		t.Errorf("after the CA has changed: %v", err)
	}

	// Something else runs now.
	if err := factory.Measure(w.d.tpm, factory.Event{PCR: 4, Data: []byte("kexec")}); err != nil {
		t.Fatal(err)
	}
	refused := new(client.AttesterError)
	if _, err := attest("ES256", once); !errors.As(err, &refused) || refused.Code != "invalid_evidence" {
		t.Errorf("with a log that has an event too few: %v", err)
	}
	w.d.log = nil
	if _, err := attest("ES256", once); !errors.As(err, &refused) || refused.Code != "platform_evidence_required" {
		t.Errorf("without a log: %v", err)
	}
	w.reference["software"] = []object{{"swname": "gateway-os", "swversion": "2.0", "verdict": "affirming", "pcrs": pcrsOf(w.d.firmware, 4)}}
	w.reference["secure_boot_authorities"] = nil
	w.ca = old
	w.start()
	if _, err := attest("ES256", once+" tpm/attest tpm/secret "+once); !errors.Is(err, client.ErrAttestationRefused) {
		t.Errorf("in a state that is no reference value: %v", err)
	}
}
