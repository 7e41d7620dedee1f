// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// An observer watches a client instance and its servers and tells the story of
// what it sees: in the key store, on the network, in the servers' logs. It
// changes nothing.
type observer struct {
	story       *story
	stderr      io.Writer
	arranged    *arrangement
	attesterURL string
	verdicts    *verdicts

	mu          sync.Mutex
	endpoints   endpoints
	proof       evidenceView
	attestation string            // what the attester has sent
	verified    map[string]string // what the authorization server has logged of the token
}

// endpoints are the authorization server's, as its metadata told the client.
type endpoints struct {
	Token     string `json:"token_endpoint"`
	Challenge string `json:"challenge_endpoint"`
}

func newObserver(s *story, stderr io.Writer, arranged *arrangement) *observer {
	return &observer{story: s, stderr: stderr, arranged: arranged}
}

// RoundTrip implements http.RoundTripper.
func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := requestBody(req)
	if err != nil {
		return nil, err
	}
	o.request(req, body)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	received, err := io.ReadAll(resp.Body) // of servers in this process
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(received))
	o.response(req, resp.StatusCode, received)
	return resp, nil
}

// requestBody reads a copy of the body.
func requestBody(req *http.Request) ([]byte, error) {
	if req.GetBody == nil {
		return nil, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// request sees what the client sends.
func (o *observer) request(req *http.Request, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := req.Method + " " + req.URL.String()
	switch req.URL.String() {
	case o.attesterURL + "/tpm/attest":
		if err := o.proof.readEnrolment(body); err != nil {
			o.story.fail(err)
		}
	case o.attesterURL + "/client-attestation":
		o.attestationRequest(line, body)
	case o.endpoints.Challenge:
		o.story.step(step{Step: "1", Request: line})
	case o.endpoints.Token:
		form, _ := url.ParseQuery(string(body))
		o.story.step(step{Step: "3", JWT: o.view(req.Header.Get(transport.HeaderAttestationPoP))})
		if req.Header.Get(transport.HeaderAttestation) != o.attestation {
			o.story.fail(errors.New("the token request does not have the attestation of step d"))
		}
		o.story.step(step{
			Step:    "4",
			Request: line,
			Fields: map[string]string{
				transport.HeaderAttestation:    "the JWT of step d",
				transport.HeaderAttestationPoP: "the JWT of step 3",
			},
			Form: formValues(form),
		})
	}
}

// attestationRequest sees what is sent to the attester: step b.
func (o *observer) attestationRequest(line string, body []byte) {
	var message struct{ Request string }
	json.Unmarshal(body, &message) // what is no JSON has no JWT: see view
	seen := step{Step: "b", Request: line, JWT: o.view(message.Request), Note: o.arranged.note}
	if seen.JWT != nil {
		found, err := o.proof.readRequest(seen.JWT)
		if err != nil {
			o.story.fail(err)
		}
		if seen.Evidence = &found; found {
			seen.Title, seen.Proof = titleEvidence, &o.proof
			if len(o.proof.PCRs) == 0 {
				seen.Title = titleKeyAlone
			}
		}
	}
	o.story.step(seen)
}

// response sees what the client receives.
func (o *observer) response(req *http.Request, status int, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var answer struct {
		Attestation string `json:"client_attestation"`
		Challenge   string `json:"attestation_challenge"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
		Scope       string `json:"scope"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &answer) != nil {
		return // the client will say what is wrong
	}
	switch req.URL.String() {
	case o.attesterURL + "/tpm/secret":
		o.proof.Enrolled = true
	case o.attesterURL + "/client-attestation":
		o.attestation = answer.Attestation
		o.verdicts.attested(answer.Attestation)
		o.story.step(step{Step: "d", Status: status, JWT: o.view(answer.Attestation), Attested: o.attested(answer.Attestation)})
	case o.endpoints.Challenge:
		o.story.step(step{Step: "2", Status: status, Challenge: answer.Challenge})
	case o.endpoints.Token:
		if o.verified == nil {
			o.story.fail(errors.New("the authorization server has no record of the token"))
		}
		seen := step{
			Step:      "5",
			Status:    status,
			Log:       o.verified,
			TokenType: answer.TokenType,
			ExpiresIn: answer.ExpiresIn,
			Scope:     answer.Scope,
			Policy:    o.arranged.policy,
		}
		if seen.Policy != nil {
			seen.Title = titleDecide
		}
		o.story.step(seen)
	default:
		if strings.Contains(req.URL.Path, "/.well-known/") {
			json.Unmarshal(body, &o.endpoints) // it was JSON just above
		}
	}
}

// view decodes a JWT; what is none is an error of the story.
func (o *observer) view(compact string) *jwtview.View {
	view, err := jwtview.Decode(compact)
	if err != nil {
		o.story.fail(err)
		return nil
	}
	return &view
}

// attested returns what an attestation says of the device; nil for nothing.
func (o *observer) attested(attestation string) *attested {
	view := o.view(attestation)
	if view == nil {
		return nil
	}
	said, err := readAttested(view)
	if err != nil {
		o.story.fail(err)
	}
	if said == (attested{}) {
		return nil
	}
	return &said
}

// formValues returns the parameters of a token request; those that may be
// secret without their value.
func formValues(form url.Values) map[string]string {
	values := make(map[string]string)
	for name := range form {
		values[name] = form.Get(name)
		if !slices.Contains([]string{"grant_type", "client_id", "scope"}, name) {
			values[name] = "…"
		}
	}
	return values
}

// store returns a store that tells of the key.
func (o *observer) store(s *storeflag.Store) keystore.Store { return observedStore{s, o} }

type observedStore struct {
	*storeflag.Store
	o *observer
}

func (s observedStore) Create(ctx context.Context, name string) (keystore.Key, error) {
	key, err := s.Store.Create(ctx, name)
	return s.tell(key, err, true)
}

func (s observedStore) Open(ctx context.Context, name string) (keystore.Key, error) {
	key, err := s.Store.Open(ctx, name)
	return s.tell(key, err, false)
}

func (s observedStore) tell(key keystore.Key, err error, created bool) (keystore.Key, error) {
	if err != nil {
		return nil, err
	}
	jwk, err := keystore.JWK(key.Public())
	if err != nil {
		return nil, err
	}
	thumbprint, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	s.o.story.step(step{
		Step:          "a",
		Store:         s.Name,
		Protection:    s.Protection,
		Created:       &created,
		Algorithm:     key.Algorithm(),
		KeyThumbprint: thumbprint,
		Key:           &jwk,
	})
	return s.o.arranged.key(key), nil
}
