// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"

	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

const (
	issuer      = "https://as.example.com"
	attesterURL = "https://attester.example.com"
	resourceURL = "https://rs.example.com/readings"
	accessToken = "access-token-0123456789abcdef"
	// Of nothing in common with it.
	refreshToken = "RT.kq7Zp2Xw9sLm4Vb8"
	idToken      = "IT.hY3nTc6RfJg1Qd5U"
)

// A world is an attester, a server and a resource that take whatever they are sent, in
// this process. It keeps the credentials that it saw and gave.
type world struct {
	t        *testing.T
	attester keystore.Key
	store    *softkey.Store

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by URL: instead of what is usual
	claims  map[string]any              // further ones of attestations
	secrets []string
	seen    map[string]int // requests by URL
}

func newWorld(t *testing.T) *world {
	attester, err := softkey.New().Create(t.Context(), "attester")
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, attester: attester, store: softkey.New(),
		answers: make(map[string]http.HandlerFunc), claims: make(map[string]any), seen: make(map[string]int),
	}
}

// RoundTrip implements http.RoundTripper, without sockets.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	at := req.URL.Scheme + "://" + req.URL.Host + req.URL.Path
	w.mu.Lock()
	w.seen[at]++
	answer := w.answers[at]
	for _, name := range []string{"OAuth-Client-Attestation", "OAuth-Client-Attestation-PoP", "DPoP"} {
		if value := req.Header.Get(name); value != "" {
			w.secrets = append(w.secrets, value[strings.LastIndexByte(value, '.')+1:])
		}
	}
	w.mu.Unlock()
	received := req.Clone(req.Context())
	received.Body = io.NopCloser(bytes.NewReader(body))
	recorder := httptest.NewRecorder()
	if answer == nil {
		answer = w.usual
	}
	answer(recorder, received)
	resp := recorder.Result()
	resp.Request = req
	if resp.StatusCode == http.StatusTeapot { // there is nobody
		return nil, io.ErrUnexpectedEOF
	}
	return resp, nil
}

func (w *world) usual(rw http.ResponseWriter, req *http.Request) {
	switch req.URL.Scheme + "://" + req.URL.Host + req.URL.Path {
	case issuer + "/.well-known/oauth-authorization-server":
		give(rw, 200, map[string]any{"issuer": issuer, "token_endpoint": issuer + "/token", "challenge_endpoint": issuer + "/challenge"})
	case issuer + "/challenge":
		give(rw, 200, map[string]any{"attestation_challenge": "the-challenge"})
	case issuer + "/token":
		give(rw, 200, map[string]any{"access_token": accessToken, "refresh_token": refreshToken, "token_type": "Bearer", "expires_in": 300})
	case attesterURL + "/challenge":
		give(rw, 200, map[string]any{"challenge": "attesters-challenge"})
	case attesterURL + "/client-attestation":
		give(rw, 200, map[string]any{"client_attestation": w.attestation(req), "expires_in": 3600})
	case resourceURL:
		give(rw, 200, map[string]any{"reading": "private"})
	default:
		rw.WriteHeader(http.StatusNotFound)
	}
}

// attestation makes one for the key that has signed a request.
func (w *world) attestation(req *http.Request) string {
	var message struct{ Request string }
	if err := json.NewDecoder(req.Body).Decode(&message); err != nil {
		w.t.Error(err)
	}
	request, err := jose.ParseSignedCompact(message.Request, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		w.t.Error(err)
		return ""
	}
	w.mu.Lock()
	w.secrets = append(w.secrets, message.Request[strings.LastIndexByte(message.Request, '.')+1:])
	claims := maps.Clone(w.claims)
	w.mu.Unlock()
	return w.sign(request.Signatures[0].Protected.JSONWebKey, claims)
}

func (w *world) sign(key *jose.JSONWebKey, claims map[string]any) string {
	maps.Copy(claims, map[string]any{
		"sub": "client", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "cnf": map[string]any{"jwk": key},
	})
	payload, err := json.Marshal(claims)
	if err != nil {
		w.t.Error(err)
	}
	signer, err := jose.NewSigner(keystore.SigningKey(context.Background(), w.attester), new(jose.SignerOptions).WithType("oauth-client-attestation+jwt"))
	if err != nil {
		w.t.Error(err)
		return ""
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		w.t.Error(err)
		return ""
	}
	text, _ := signed.CompactSerialize()
	return text
}

func give(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// gives has a URL answer with that.
func (w *world) gives(at string, status int, body any) {
	w.answers[at] = func(rw http.ResponseWriter, _ *http.Request) { give(rw, status, body) }
}

// away has nobody answer at a URL.
func (w *world) away(at string) { w.gives(at, http.StatusTeapot, nil) }

// config is that of a client in this world.
func (w *world) config() client.Config {
	return client.Config{
		Issuer: issuer, ClientID: "client", Store: w.store, KeyName: "key", Base: w,
		Attester: client.HTTPAttester{URL: attesterURL, Client: &http.Client{Transport: w}},
	}
}

// run gets a token with a client that is recorded, and returns its act.
func (w *world) run(change func(*client.Config)) (*report.Recorder, error) {
	w.t.Helper()
	recorder := report.NewRecorder(report.Options{Software: true})
	cfg := w.config()
	if change != nil {
		change(&cfg)
	}
	recorder.Attach(&cfg)
	c, err := client.New(w.t.Context(), cfg)
	if err == nil {
		defer c.Close()
		_, err = c.Token(w.t.Context(), "scope")
	}
	recorder.Fail(err)
	return recorder, err
}

// step returns a step of an act, nil if it did not run.
func step(act report.Act, id report.StepID) *report.Step {
	for i := range act.Steps {
		if act.Steps[i].ID == id {
			return &act.Steps[i]
		}
	}
	return nil
}

// order is the order of the steps that ran.
func order(act report.Act) string {
	var ids []string
	for _, s := range act.Steps {
		ids = append(ids, string(s.ID))
	}
	return strings.Join(ids, " ")
}

// written is all that is written of acts.
func written(t *testing.T, acts ...report.Act) (page, text, figure string) {
	t.Helper()
	d := report.Document{Title: "a run", Acts: acts}
	var out [3]strings.Builder
	for i, write := range []func(io.Writer) error{d.WriteHTML, d.WriteJSON, d.WriteFigure} {
		if err := write(&out[i]); err != nil {
			t.Fatal(err)
		}
	}
	return out[0].String(), out[1].String(), out[2].String()
}
