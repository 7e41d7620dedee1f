// SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// An Attester is a Client Attester that client.HTTPAttester can ask. It wants no
// evidence, and attests every key.
type Attester struct {
	URL string // client.HTTPAttester.URL

	server *transporttest.Server
	now    func() time.Time
	away   atomic.Bool
	refuse atomic.Bool

	mu         sync.Mutex
	challenges map[string]bool
	attested   int
}

func newAttester(tb testing.TB, server *transporttest.Server, now func() time.Time) *Attester {
	a := &Attester{server: server, now: now, challenges: make(map[string]bool)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /challenge", a.challenge)
	mux.HandleFunc("POST /client-attestation", a.attest)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.away.Load() {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	tb.Cleanup(site.Close)
	a.URL = site.URL
	return a
}

// SetAway takes the attester away, or brings it back. Requests to one that is away get no
// answer.
func (a *Attester) SetAway(away bool) { a.away.Store(away) }

// SetRefuse makes the attester refuse the instance, or attest it again.
func (a *Attester) SetRefuse(refuse bool) { a.refuse.Store(refuse) }

// Attested returns how many attestations the attester has given.
func (a *Attester) Attested() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attested
}

func (a *Attester) challenge(w http.ResponseWriter, _ *http.Request) {
	challenge := rand.Text()
	a.mu.Lock()
	a.challenges[challenge] = true
	a.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"challenge": challenge, "expires_in": 300})
}

func (a *Attester) attest(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Request string `json:"request"`
	}
	content, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || json.Unmarshal(content, &body) != nil {
		writeJSON(w, http.StatusBadRequest, refusal("invalid_request", "the body is no JSON object"))
		return
	}
	key, code, reason := a.check(body.Request)
	if code != "" {
		status := http.StatusBadRequest
		if code == "policy_violation" {
			status = http.StatusForbidden
		}
		writeJSON(w, status, refusal(code, reason))
		return
	}
	if a.refuse.Load() {
		writeJSON(w, http.StatusForbidden, refusal("policy_violation", "the test refuses this instance"))
		return
	}
	a.mu.Lock()
	a.attested++
	a.mu.Unlock()
	attestation := a.server.Attester.Attest(key.Key)
	writeJSON(w, http.StatusOK, map[string]any{
		"client_attestation": attestation, "expires_in": int(a.server.Attester.Lifetime / time.Second),
	})
}

// check verifies a signed request for an attestation, as examples/attester/PROTOCOL.md
// has it, and returns the key that it is for.
func (a *Attester) check(request string) (key *jose.JSONWebKey, code, reason string) {
	jws, err := jose.ParseSignedCompact(request, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.PS256, jose.RS256})
	if err != nil {
		return nil, "invalid_pop", err.Error()
	}
	header := jws.Signatures[0].Protected
	key = header.JSONWebKey
	if key == nil || !key.IsPublic() || header.ExtraHeaders[jose.HeaderType] != "client-attestation-request+jwt" {
		return nil, "invalid_pop", "the header has no public jwk, or another typ"
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, "invalid_pop", err.Error()
	}
	var claims struct {
		Issuer    string `json:"iss"`
		Audience  string `json:"aud"`
		ID        string `json:"jti"`
		IssuedAt  int64  `json:"iat"`
		Expiry    int64  `json:"exp"`
		Challenge string `json:"challenge"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, "invalid_pop", err.Error()
	}
	now := a.now().Unix()
	switch {
	case claims.Audience != a.URL:
		return nil, "invalid_pop", "aud is not this attester"
	case claims.ID == "" || claims.IssuedAt > now+60 || claims.Expiry <= now:
		return nil, "invalid_pop", "jti is missing, or iat and exp are not about now"
	case claims.Issuer != a.server.ClientID:
		return nil, "policy_violation", "iss is no client_id that this attester knows"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.challenges[claims.Challenge] {
		return nil, "invalid_challenge", "the challenge is unknown, or was used"
	}
	delete(a.challenges, claims.Challenge)
	return key, "", ""
}

func refusal(code, reason string) map[string]any {
	return map[string]any{"error": code, "error_description": reason}
}

func writeJSON(w http.ResponseWriter, status int, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps of plain values come here
	}
	_, _ = w.Write(content) // a client that has gone away is its own affair
}
