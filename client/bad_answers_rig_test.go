// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// Where a bad answer may come from.
const (
	fromMetadata          = "metadata"
	fromChallenge         = "challenge"
	fromToken             = "token"
	fromAttesterChallenge = "the attester's challenge"
	fromAttester          = "attester"
	fromResourceMetadata  = "resource metadata"
	fromResource          = "resource"
)

const (
	badResource = "https://rs.example.com/api"
	badAttester = "https://attester.example.com"
)

// A spoiledRig is all that a Client talks to, in a synctest bubble and over what looks
// like TLS, with one answer that is bad.
type spoiledRig struct {
	*resourceRig
	client *client.Client
	start  time.Time // of the bubble

	mu       sync.Mutex
	requests map[string]int
	spoilt   string // where the next answer is bad; "": nowhere
	answer   badAnswer
	given    int       // bad answers
	over     time.Time // when the last one had come
}

// newSpoiledRig is called outside of the bubble, and begin in it.
func newSpoiledRig(t testing.TB, policy transporttest.Policy) *spoiledRig {
	r := &spoiledRig{resourceRig: newResourceRig(t, policy, badResource)}
	r.resources[0].describe(map[string]any{"challenge_endpoint": badResource + "/challenge"})
	r.resources[0].challenge = "challenge-of-the-resource"
	return r
}

// It forgets what was before.
func (r *spoiledRig) begin(t *testing.T, edits ...func(*client.Config)) {
	r.Forget()
	r.resources[0].requests = nil
	r.requests, r.spoilt, r.given = make(map[string]int), "", 0
	r.start = time.Now()
	now := func() time.Time { return r.clock.now().Add(time.Since(r.start)) }
	r.now, r.resources[0].now = now, now
	r.client = r.rig.client(t, append([]func(*client.Config){func(cfg *client.Config) {
		cfg.Store, cfg.Key, cfg.Base, cfg.Clock = nil, r.key, r, now
		cfg.Attester = client.HTTPAttester{URL: badAttester, Client: &http.Client{Transport: r}}
		cfg.Resources = []client.Resource{{Identifier: badResource, Attestation: client.AttestAlways}}
	}}, edits...)...)
}

// whose returns whom a request is for.
func (r *spoiledRig) whose(req *http.Request) string {
	switch location := req.URL.String(); {
	case location == badAttester+"/challenge":
		return fromAttesterChallenge
	case strings.HasPrefix(location, badAttester):
		return fromAttester
	case location == wellKnownOf(badResource):
		return fromResourceMetadata
	case location == badResource+"/challenge":
		return "the resource's challenge"
	case strings.HasPrefix(location, badResource):
		return fromResource
	case location == r.Endpoint(transporttest.Token):
		return fromToken
	case location == r.Endpoint(transporttest.Challenge):
		return fromChallenge
	case strings.Contains(location, inserted):
		return fromMetadata
	default:
		return location
	}
}

// RoundTrip answers badly once if that is wanted, and well otherwise.
func (r *spoiledRig) RoundTrip(req *http.Request) (*http.Response, error) {
	whose := r.whose(req)
	r.mu.Lock()
	r.requests[whose]++
	bad := r.spoilt == whose
	answer := r.answer
	if bad {
		r.spoilt = ""
		r.given++
	}
	r.mu.Unlock()
	good := func() (*http.Response, error) { return r.answerWell(req) }
	if !bad {
		return good()
	}
	resp, err := answer.answer(req, good)
	if err == nil {
		resp.Request, resp.TLS = req, overTLSState
	}
	r.mu.Lock()
	r.over = time.Now()
	r.mu.Unlock()
	return resp, err
}

func (r *spoiledRig) answerWell(req *http.Request) (*http.Response, error) {
	handler := http.Handler(r.resourceRig)
	if strings.HasPrefix(req.URL.String(), badAttester) {
		handler = http.HandlerFunc(r.attest)
	}
	resp, err := overTLS{inProcess{handler}}.RoundTrip(req)
	if err == nil {
		resp.Header.Set("Date", r.now().UTC().Format(http.TimeFormat))
	}
	return resp, err
}

// attest is a Client Attester that asks no questions.
func (r *spoiledRig) attest(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/challenge" {
		writeJSON(w, map[string]any{"challenge": "challenge-of-the-attester"})
		return
	}
	var body struct {
		Request string `json:"request"`
	}
	_ = json.NewDecoder(req.Body).Decode(&body)
	jws, err := jose.ParseSignedCompact(body.Request, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || jws.Signatures[0].Protected.JSONWebKey == nil {
		http.Error(w, "no signed request", http.StatusBadRequest)
		return
	}
	writeJSON(w, map[string]any{"client_attestation": r.Attester.Attest(jws.Signatures[0].Protected.JSONWebKey.Key)})
}

// spoil makes the next answer from there a bad one.
func (r *spoiledRig) spoil(where string, answer badAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoilt, r.answer = where, answer
}

func (r *spoiledRig) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]int, len(r.requests))
	for whose, n := range r.requests {
		counts[whose] = n
	}
	return counts
}

// use is what a device does: it gets a token, and goes to the resource with it.
func (r *spoiledRig) use(t *testing.T, scope string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	token, err := r.client.Token(ctx, scope)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, badResource+"/readings", nil)
	if err != nil {
		return err
	}
	token.SetAuthHeader(req)
	resp, err := r.client.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("the resource answers %d", resp.StatusCode))
	}
	return err
}
