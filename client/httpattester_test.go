// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	strictjson "github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

const attesterURL = "https://attester.example.com/v1"

// A strictAttester is the Client Attester's side of the protocol. It fails the
// test for each request that is not as it should be, and answers with the key's
// thumbprint in place of an attestation.
type strictAttester struct {
	t        *testing.T
	url      string // base URL and identifier
	clientID string
	clock    *testClock
	secret   string // must appear in no request

	mu         sync.Mutex
	challenges []string
	jtis       []string
}

func (a *strictAttester) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodPost {
		a.t.Errorf("method %s", r.Method)
	}
	if accept := r.Header.Get("Accept"); accept != "application/json" {
		a.t.Errorf("Accept %q", accept)
	}
	for name, values := range r.Header {
		if slices.Contains([]string{"Oauth-Client-Attestation", "Oauth-Client-Attestation-Pop", "Dpop", "Authorization", "Referer"}, name) || strings.Contains(strings.Join(values, " "), a.secret) {
			a.t.Errorf("header field %s: %q", name, values)
		}
	}
	switch r.URL.String() {
	case strings.TrimSuffix(a.url, "/") + "/challenge":
		if len(body) != 0 || r.Header.Get("Content-Type") != "" {
			a.t.Errorf("challenge request with a body of %d bytes, Content-Type %q", len(body), r.Header.Get("Content-Type"))
		}
		a.mu.Lock()
		challenge := "challenge-" + string(rune('a'+len(a.challenges)))
		a.challenges = append(a.challenges, challenge)
		a.mu.Unlock()
		text(`{"challenge":"`+challenge+`","expires_in":300}`)(w, r)
	case strings.TrimSuffix(a.url, "/") + "/client-attestation":
		text(`{"client_attestation":"`+a.check(r, body)+`","expires_in":3600}`)(w, r)
	default:
		a.t.Errorf("request to %s", r.URL)
		w.WriteHeader(http.StatusNotFound)
	}
}

// check verifies a request for an attestation and returns the thumbprint of the
// key that it is for.
func (a *strictAttester) check(r *http.Request, body []byte) string {
	if contentType := r.Header.Get("Content-Type"); contentType != "application/json" {
		a.t.Errorf("Content-Type %q", contentType)
	}
	var message map[string]string
	if err := strictjson.Unmarshal(body, &message); err != nil || len(message) != 1 {
		a.t.Errorf("body has members %v (%v), want request alone", message, err)
		return ""
	}
	jws, err := jose.ParseSignedCompact(message["request"], []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		a.t.Errorf("request: %v", err)
		return ""
	}
	header := jws.Signatures[0].Protected
	if typ := header.ExtraHeaders[jose.HeaderType]; typ != "client-attestation-request+jwt" {
		a.t.Errorf("typ %v", typ)
	}
	if header.JSONWebKey == nil || !header.JSONWebKey.IsPublic() || header.KeyID != "" {
		a.t.Errorf("jwk %v, kid %q, want a public jwk alone", header.JSONWebKey, header.KeyID)
		return ""
	}
	content, err := jws.Verify(header.JSONWebKey)
	if err != nil {
		a.t.Errorf("signature: %v", err)
		return ""
	}
	a.checkClaims(content)
	thumbprint, err := keystore.Thumbprint(header.JSONWebKey.Key)
	if err != nil {
		a.t.Error(err)
	}
	return thumbprint
}

func (a *strictAttester) checkClaims(content []byte) {
	if strings.Contains(string(content), a.secret) {
		a.t.Errorf("claims tell %s: %s", a.secret, content)
	}
	var claims map[string]any
	if err := strictjson.Unmarshal(content, &claims); err != nil {
		a.t.Errorf("claims: %v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.now().Unix()
	for name, want := range map[string]any{
		"iss": a.clientID, "aud": a.url, "iat": float64(now), "exp": float64(now + 300), "challenge": a.challenges[len(a.challenges)-1],
	} {
		if claims[name] != want {
			a.t.Errorf("claim %s is %v, want %v", name, claims[name], want)
		}
	}
	jti, _ := claims["jti"].(string)
	if len(jti) < 16 || slices.Contains(a.jtis, jti) {
		a.t.Errorf("jti %q is short, or not new", jti)
	}
	a.jtis = append(a.jtis, jti)
	if len(claims) != 6 {
		a.t.Errorf("claims %v, want six", claims)
	}
}

func TestHTTPAttesterRequest(t *testing.T) {
	for _, url := range []string{attesterURL, attesterURL + "/", "https://attester.example.com", "http://localhost:8080", "http://[::1]:8080/v1"} {
		for _, algorithm := range []string{"ES256", "ES384", "EdDSA"} {
			t.Run(url+" "+algorithm, func(t *testing.T) {
				attester := &strictAttester{t: t, url: url, clientID: "meter", clock: newTestClock(), secret: "as.example.com"}
				key := newKey(t, algorithm)
				thumbprint, err := keystore.Thumbprint(key.Public())
				if err != nil {
					t.Fatal(err)
				}
				h := client.HTTPAttester{URL: url, Client: &http.Client{Transport: inProcess{attester}}}
				for range 3 {
					got, err := h.Attest(t.Context(), client.AttestRequest{
						ClientID: "meter", Key: key, Clock: attester.clock.now,
						Issuer: "https://as.example.com/tenant", SigningAlgs: []string{"ES256"}, Rejected: "old.attestation.as.example.com",
					})
					if err != nil || got != thumbprint {
						t.Errorf("Attest = %q, %v, want %q", got, err, thumbprint)
					}
				}
				if len(attester.challenges) != 3 || len(attester.jtis) != 3 {
					t.Errorf("%d challenges and %d requests, want 3 of each", len(attester.challenges), len(attester.jtis))
				}
			})
		}
	}
}

func TestHTTPAttesterURL(t *testing.T) {
	for name, url := range map[string]string{
		"http":          "http://attester.example.com",
		"empty":         "",
		"no scheme":     "attester.example.com",
		"other scheme":  "ftp://attester.example.com",
		"with password": "https://user:word@attester.example.com",
		"with fragment": "https://attester.example.com/#a",
		"with query":    "https://attester.example.com/?tenant=1",
		"not a URL":     "https://attester.example.com/%",
	} {
		t.Run(name, func(t *testing.T) {
			site := newSite()
			h := client.HTTPAttester{URL: url, Client: &http.Client{Transport: inProcess{site}}}
			_, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256"), Clock: newTestClock().now})
			if err == nil || errors.Is(err, client.ErrAttesterUnavailable) || errors.Is(err, client.ErrAttestationRefused) || strings.Contains(err.Error(), "word") {
				t.Errorf("error %v, want one of configuration, without the password", err)
			}
			if visits := site.visits(); len(visits) != 0 {
				t.Errorf("requests %q, want none", visits)
			}
		})
	}
}

func TestHTTPAttesterWithoutChallengeSignsNothing(t *testing.T) {
	for name, answer := range map[string]string{"none": `{}`, "empty": `{"challenge":""}`, "null": `{"challenge":null}`, "attestation challenge": `{"attestation_challenge":"c"}`} {
		t.Run(name, func(t *testing.T) {
			site := newSite()
			site.set(attesterURL+"/challenge", text(answer))
			r := countingKeyOf(t)
			h := client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{site}}}
			if _, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: r, Clock: newTestClock().now}); err == nil {
				t.Error("no error")
			}
			if signed, visits := r.signed.Load(), len(site.visits()); signed != 0 || visits != 1 {
				t.Errorf("%d signatures, %d requests, want 0 and 1", signed, visits)
			}
		})
	}
}

func TestHTTPAttesterUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close() // its port is free now
	h := client.HTTPAttester{URL: server.URL}
	if _, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256")}); !errors.Is(err, client.ErrAttesterUnavailable) {
		t.Errorf("error %v, want ErrAttesterUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	site := newSite()
	h = client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: inProcess{site}}}
	if _, err := h.Attest(ctx, client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestHTTPAttesterLeavesClientAsItIs(t *testing.T) {
	followed := 0
	theirs := &http.Client{Transport: inProcess{newSite()}, CheckRedirect: func(*http.Request, []*http.Request) error { followed++; return nil }}
	before := theirs.Transport
	h := client.HTTPAttester{URL: attesterURL, Client: theirs}
	_, err := h.Attest(t.Context(), client.AttestRequest{ClientID: "c", Key: newKey(t, "ES256")})
	if err == nil || theirs.Transport != before || theirs.CheckRedirect(nil, nil) != nil || followed != 1 {
		t.Errorf("the caller's http.Client was changed (error %v)", err)
	}
}
