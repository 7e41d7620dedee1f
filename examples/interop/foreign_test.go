// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/client"
	reference "github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// noPCR is a PCR of a TPM that nothing was measured into.
var noPCR = strings.Repeat("00", 32)

// script runs a script of this folder with one line of configuration, and returns
// the line that it answers with. It runs until the end of the test.
func script(t *testing.T, name string, config, answer any) {
	t.Helper()
	node, err := install()
	if err != nil {
		missing(t, err)
	}
	line, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, name)
	stderr := new(strings.Builder) // read only after Wait
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Cancel = stdin.Close // one that does not end by itself is killed
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, stderr)
		}
	})
	if _, err := fmt.Fprintf(stdin, "%s\n", line); err != nil {
		t.Fatal(err)
	}
	printed, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil || json.Unmarshal(printed, answer) != nil {
		t.Fatalf("%s printed %q: %v", name, printed, err)
	}
}

// TestForeignAttester: an attester that was written from PROTOCOL.md alone, in
// another language, attests this repository's devices, for what they are.
func TestForeignAttester(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (device tpmtest.Device, roots [][]byte){
		"EK P-256 on simulator": func(t *testing.T) (tpmtest.Device, [][]byte) {
			device := tpmtest.Simulator(t)
			maker, err := factory.NewTPMMaker(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := maker.Endorse(tpmtest.Dial(t, device)); err != nil {
				t.Fatal(err)
			}
			return device, [][]byte{maker.Root.Raw}
		},
		"EK RSA-2048 on swtpm": func(t *testing.T) (tpmtest.Device, [][]byte) {
			device := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
			return device, device.CA(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			device, roots := open(t)
			var foreign struct{ URL string }
			script(t, "attester.mjs", map[string]any{
				"clientID": "abca-client", "roots": pems(roots), "pcrs": []int{7, 0, 4},
				"software": []any{map[string]any{"swname": "gateway-os", "swversion": "2.0", "pcrs": map[string]string{"4": noPCR, "7": noPCR}}},
			}, &foreign)
			server := newAuthServer(t, jwksOf(t, foreign.URL))
			store := openTPM(t, device)
			c, err := client.New(t.Context(), client.Config{
				Issuer: server.URL, ClientID: "abca-client", Store: store, Attester: client.HTTPAttester{URL: foreign.URL},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Token(t.Context()); err != nil {
				t.Fatal(err)
			}

			attest := func(url string) error {
				t.Helper()
				key, err := keystore.OpenOrCreate(t.Context(), store, "another")
				if err != nil {
					t.Fatal(err)
				}
				_, err = client.HTTPAttester{URL: url}.Attest(t.Context(), client.AttestRequest{ClientID: "abca-client", Key: key})
				return err
			}
			if err := attest(foreign.URL); err != nil {
				t.Errorf("another key of the same device: %v", err)
			}

			// An attester that trusts another maker does not take the device.
			other, err := factory.NewTPMMaker(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var strict struct{ URL string }
			script(t, "attester.mjs", map[string]any{"clientID": "abca-client", "roots": pems([][]byte{other.Root.Raw}), "pcrs": []int{4}, "software": []any{}}, &strict)
			refused := new(client.AttesterError)
			if err := attest(strict.URL); !errors.As(err, &refused) || refused.Code != "untrusted_tpm" {
				t.Errorf("another maker's: %v", err)
			}

			// The device runs something else now.
			if err := store.(io.Closer).Close(); err != nil {
				t.Fatal(err)
			}
			measure(t, device)
			store = openTPM(t, device)
			if err := attest(foreign.URL); !errors.Is(err, client.ErrAttestationRefused) {
				t.Errorf("other software: %v", err)
			}
		})
	}
}

// measure measures something into PCR 4.
func measure(t *testing.T, device tpmtest.Device) {
	t.Helper()
	conn, err := device.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tpmtest.ExtendPCR(t, conn, 4, "something else")
}

func pems(ders [][]byte) []string {
	var texts []string
	for _, der := range ders {
		texts = append(texts, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return texts
}

func jwksOf(t *testing.T, attesterURL string) (keys jose.JSONWebKeySet) {
	t.Helper()
	response, err := http.Get(attesterURL + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// newAuthServer is this repository's own, and wants devices with gateway-os 2.0.
func newAuthServer(t *testing.T, attester jose.JSONWebKeySet) *httptest.Server {
	t.Helper()
	policy, err := authserver.ParsePolicy([]byte(`{"minimum_versions": {"gateway-os": "2.0"}}`))
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewUnstartedServer(nil)
	server, err := authserver.New(authserver.Config{
		Issuer: "http://" + listening.Listener.Addr().String(), Clients: []authserver.Client{{ID: "abca-client", Scopes: []string{"read"}}},
		AttesterKeys: attester, Challenges: &authserver.ChallengeConfig{Endpoint: true}, Policy: policy, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	listening.Config.Handler = server
	listening.Start()
	t.Cleanup(listening.Close)
	return listening
}

// TestForeignDevice: this repository's attester attests a device that was written
// from PROTOCOL.md alone, in another language, and refuses it for the same reasons
// as its own.
func TestForeignDevice(t *testing.T) {
	device := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
	_, socket := device.Addr()
	a := newReferenceAttester(t, device.CA(t))
	ask := func(config map[string]any) (answer struct {
		JWK          jose.JSONWebKey
		Attestations []string
		Error        string
	}) {
		t.Helper()
		maps.Copy(config, map[string]any{"tpm": socket, "attester": a.URL, "clientID": "abca-client"})
		script(t, "device.mjs", config, &answer)
		return answer
	}

	answer := ask(map[string]any{"times": 2})
	if len(answer.Attestations) != 2 {
		t.Fatalf("answered %+v, logged\n%s", answer, a.log.String())
	}
	for _, attestation := range answer.Attestations {
		parsed, err := jwt.ParseSigned(attestation, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Subject      string `json:"sub"`
			Software     string `json:"swname"`
			Confirmation struct {
				JWK jose.JSONWebKey `json:"jwk"`
			} `json:"cnf"`
		}
		if err := parsed.Claims(a.server.JWKS().Keys[0].Key, &claims); err != nil {
			t.Fatal(err)
		}
		attested, ok := claims.Confirmation.JWK.Key.(*ecdsa.PublicKey)
		if claims.Subject != "abca-client" || claims.Software != "gateway-os" || !ok || !attested.Equal(answer.JWK.Key) {
			t.Errorf("claims %+v", claims)
		}
	}
	want := map[string]int{"/challenge": 2, "/tpm/attest": 1, "/tpm/secret": 1, "/client-attestation": 2}
	if got := a.counts(); !maps.Equal(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}

	other, err := factory.NewTPMMaker(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if answer := ask(map[string]any{"times": 1, "ekCerts": [][]byte{other.Root.Raw}}); answer.Error != "untrusted_tpm" {
		t.Errorf("with a certificate that is not the EK's: %+v", answer)
	}
	measure(t, device)
	if answer := ask(map[string]any{"times": 1}); answer.Error != "policy_violation" {
		t.Errorf("with other software: %+v", answer)
	}
}

// A referenceAttester is this repository's own, on loopback, and counts requests.
type referenceAttester struct {
	*httptest.Server
	server *reference.Server
	log    strings.Builder

	mu       sync.Mutex
	requests map[string]int
}

func (a *referenceAttester) counts() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.requests)
}

func newReferenceAttester(t *testing.T, roots [][]byte) *referenceAttester {
	t.Helper()
	var anchors, links []*x509.Certificate
	for _, der := range roots {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if certificate.CheckSignatureFrom(certificate) == nil {
			anchors = append(anchors, certificate)
		} else {
			links = append(links, certificate)
		}
	}
	trusted, err := evidence.NewRoots(anchors, links, nil)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := evidence.CreateCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	values, err := evidence.ParseReference(fmt.Appendf(nil, `{"policy": "tag:example.com,2026:gateway", "pcrs": [0, 4, 7],
		"software": [{"swname": "gateway-os", "swversion": "2.0", "verdict": "affirming", "pcrs": {"4": %q, "7": %[1]q}}]}`, noPCR))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := evidence.New(evidence.Config{Roots: trusted, CA: ca, Reference: values})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &referenceAttester{Server: httptest.NewUnstartedServer(nil), requests: map[string]int{}}
	a.server, err = reference.New(reference.Config{
		URL: "http://" + a.Listener.Addr().String(), Clients: []string{"abca-client"}, Evidence: verifier,
		Key: jose.JSONWebKey{Key: key, KeyID: "attester"}, Logger: slog.New(slog.NewTextHandler(&a.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests[r.URL.Path]++
		a.mu.Unlock()
		a.server.ServeHTTP(w, r)
	})
	a.Start()
	t.Cleanup(a.Close)
	return a
}
