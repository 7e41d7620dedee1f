// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// What a Client sends for one token, and what a verifier knows beforehand.
type sent struct {
	Verifier    string          `json:"verifier"`
	Attestation string          `json:"attestation"`
	PoP         string          `json:"pop"`
	Issuer      string          `json:"issuer"`
	AttesterKey jose.JSONWebKey `json:"attesterKey"`
	Anchor      string          `json:"anchor"`
}

// TestForeignVerifiers: what libraries of other makes, in their own languages,
// say of what a Client with a key in a TPM sends in each profile. "" is that they
// take it. Each refuses what another key has signed.
func TestForeignVerifiers(t *testing.T) {
	attester := newAttester(t)
	kid, err := keystore.Thumbprint(attester.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	leaf, anchor := certify(t, attester.Key.Public())
	store := openTPM(t, tpmtest.Simulator(t))
	key, err := store.Create(t.Context(), "instance")
	if err != nil {
		t.Fatal(err)
	}
	plain := attester.SelfAttester
	certified := plain
	certified.Certificates = []*x509.Certificate{leaf, anchor}
	wallet := certified
	wallet.Claims = map[string]any{"wallet_name": "Example", "wallet_link": "https://wallet.example.com", "aal": "https://trust-list.eu/aal/high"}

	type verdicts map[string]string // by verifier: what the refusal has in it
	judges := map[string]*judge{"node": startJudge(t, "node"), "python": startJudge(t, "python")}
	count := 0
	for name, test := range map[string]struct {
		profile  transport.Profile
		attester client.SelfAttester
		want     verdicts
	}{
		"draft-12": {transport.ProfileDraft12, plain, verdicts{
			"openid4vc": `"iss"`, "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": `"x5c"`, "PyJWT": "", "client-attestation-sdk": ""}},
		"draft-12, x5c": {transport.ProfileDraft12, certified, verdicts{
			"openid4vc": `"iss"`, "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": `"iss"`, "PyJWT": "", "client-attestation-sdk": ""}},
		"keycloak": {transport.ProfileKeycloak, plain, verdicts{
			"openid4vc": `"exp"`, "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": `"x5c"`, "PyJWT": "", "client-attestation-sdk": ""}},
		"keycloak, x5c": {transport.ProfileKeycloak, certified, verdicts{
			"openid4vc": `"exp"`, "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": "", "PyJWT": "", "client-attestation-sdk": ""}},
		"oid4vci-1": {transport.ProfileOpenID4VCI, plain, verdicts{
			"openid4vc": "", "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": `"x5c"`, "PyJWT": "", "client-attestation-sdk": ""}},
		"oid4vci-1, x5c": {transport.ProfileOpenID4VCI, certified, verdicts{
			"openid4vc": "", "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": "", "PyJWT": "", "client-attestation-sdk": ""}},
		"oid4vci-1, x5c, a wallet's claims": {transport.ProfileOpenID4VCI, wallet, verdicts{
			"openid4vc": "", "io-wallet 1.0": `"trust_chain"`, "io-wallet 1.3": "", "PyJWT": "", "client-attestation-sdk": ""}},
	} {
		s := capture(t, client.Config{Key: key, Profile: test.profile, Attester: test.attester})
		s.AttesterKey = jose.JSONWebKey{Key: attester.Key.Public(), KeyID: kid}
		s.Anchor = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: anchor.Raw}))
		for verifier, want := range test.want {
			count++
			s.Verifier = verifier
			got := judges[languages[verifier]].judge(t, s)
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s: %s says %q, want %q", name, verifier, got, want)
			}
			if want != "" || verifier == "client-attestation-sdk" { // which looks at no signature
				continue
			}
			for what, forged := range map[string]sent{
				"attestation": {Attestation: swapSignature(s.Attestation, s.PoP), PoP: s.PoP},
				"PoP JWT":     {Attestation: s.Attestation, PoP: swapSignature(s.PoP, s.Attestation)},
			} {
				forged.Verifier, forged.Issuer, forged.AttesterKey, forged.Anchor = verifier, s.Issuer, s.AttesterKey, s.Anchor
				if judges[languages[verifier]].judge(t, forged) == "" {
					t.Errorf("%s: %s takes the %s with another signature", name, verifier, what)
				}
			}
		}
	}
	if count != 35 {
		t.Errorf("%d verdicts, want 35", count)
	}
}

var languages = map[string]string{
	"openid4vc": "node", "io-wallet 1.0": "node", "io-wallet 1.3": "node", "PyJWT": "python", "client-attestation-sdk": "python",
}

// swapSignature gives a JWT the signature of another.
func swapSignature(jwt, other string) string {
	return jwt[:strings.LastIndexByte(jwt, '.')] + other[strings.LastIndexByte(other, '.'):]
}

// capture returns what a Client sends to a token endpoint.
func capture(t *testing.T, config client.Config) sent {
	t.Helper()
	s := sent{Issuer: "https://as.example.com"}
	config.Issuer, config.ClientID = s.Issuer, "https://client.example.com"
	config.Metadata = &client.Metadata{
		Issuer: s.Issuer, TokenEndpoint: s.Issuer + "/token", ChallengeEndpoint: s.Issuer + "/challenge",
		TokenEndpointAuthMethods: []string{string(transport.MethodPoP)},
	}
	config.Base = roundTripper(func(req *http.Request) *http.Response {
		body := `{"attestation_challenge":"5c1a9e10-29ff-4c2b-ae73-57c0957c09c4"}`
		if req.URL.Path == "/token" {
			s.Attestation, s.PoP = req.Header.Get(transport.HeaderAttestation), req.Header.Get(transport.HeaderAttestationPoP)
			body = `{"access_token":"t","token_type":"Bearer","expires_in":60}`
		}
		return &http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
		}
	})
	c, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req), nil }

// certify makes a trust anchor and its certificate for a key.
func certify(t *testing.T, pub any) (leaf, anchor *x509.Certificate) {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, isCA bool, parent *x509.Certificate, pub any) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, ca)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	anchor = issue("trust anchor", true, nil, &ca.PublicKey)
	return issue("attester", false, anchor, pub), anchor
}

// A judge runs verifiers.mjs or verifiers.py.
type judge struct {
	in  io.Writer
	out *bufio.Reader
}

func startJudge(t *testing.T, language string) *judge {
	t.Helper()
	program, script, err := "", "verifiers.mjs", error(nil)
	if language == "node" {
		program, err = install()
	} else {
		program, err = installPython()
		script = "verifiers.py"
	}
	if err != nil {
		missing(t, err)
	}
	cmd := exec.CommandContext(t.Context(), program, script)
	stderr := new(strings.Builder) // read only after Wait
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Cancel, cmd.WaitDelay = in.Close, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the test's context has ended, and stdin is closed
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v\n%s", script, err, stderr)
		}
	})
	return &judge{in, bufio.NewReader(out)}
}

// judge returns why a verifier refuses, "" if it does not.
func (j *judge) judge(t *testing.T, s sent) string {
	t.Helper()
	if err := json.NewEncoder(j.in).Encode(s); err != nil {
		t.Fatal(err)
	}
	var verdict struct{ Error string }
	line, err := j.out.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &verdict) != nil {
		t.Fatalf("%s: %q, %v", s.Verifier, line, err)
	}
	return verdict.Error
}

// installPython makes a virtual environment with what requirements.txt pins, and
// returns its Python.
var installPython = sync.OnceValues(func() (string, error) {
	const python = ".venv/bin/python"
	path, err := filepath.Abs(python)
	if err != nil {
		return "", err
	}
	wanted, err := os.ReadFile("requirements.txt")
	if err != nil {
		return "", err
	}
	// Written last, so that it is missing after an interruption.
	const record = ".venv/requirements.txt"
	if got, err := os.ReadFile(record); err == nil && string(got) == string(wanted) {
		return path, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", ".venv"},
		{path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r", "requirements.txt"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return path, os.WriteFile(record, wanted, 0o644)
})
