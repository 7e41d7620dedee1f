// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/internal/endpoint"
	"github.com/instancekey/instancekey/keystore"
)

// HTTPAttester gets attestations from a Client Attester over HTTPS, steps (b),
// (c) and (d): it fetches a challenge, signs a request over it with the Client
// Instance Key, and gets the attestation in return. The protocol is written
// down in examples/attester/PROTOCOL.md.
//
// The challenge is the attester's own and has nothing to do with those of
// authorization servers. Nothing in the request names the server that the
// attestation is for.
//
// With its challenge the attester says whether it wants evidence of where the key is kept
// and what the device has booted. Then the key must be a keystore.AttestableKey, or the
// error is ErrNoEvidence. The HTTPAttester enrols the device's attestation key with the
// attester if there is no valid certificate for it, and once more if the attester does
// not know it. If the attester does not know an enrolment any more (invalid_session), the
// HTTPAttester begins it anew, once. Evidence names the device to the attester by its
// TPM; see tpm.Config.EventLog and those after it for what they tell of the boot.
type HTTPAttester struct {
	// URL is the attester's base URL and its identifier, the "aud" of
	// requests. It must be https, or http on a loopback host. Required.
	URL string
	// Client sends the requests, if the attester wants them authenticated by
	// TLS or has a private root certificate. Nil means http.DefaultClient.
	// Redirects are refused with either.
	Client *http.Client
}

const (
	typeAttestationRequest = "client-attestation-request+jwt"

	// attestationRequestLifetime is how long a signed request may take to the
	// attester and through its queue.
	attestationRequestLifetime = 5 * time.Minute

	maxAttesterRequest = 1 << 20   // bytes
	maxAttesterAnswer  = 256 << 10 // bytes
)

// Attest implements Attester. An answer other than 200 is an *AttesterError. An
// attester that cannot be reached is ErrAttesterUnavailable, and so is an answer
// that is not in the form of the protocol, which another than the attester has
// given. Errors of the key match the sentinels of package keystore, or
// ErrNoEvidence.
func (h HTTPAttester) Attest(ctx context.Context, req AttestRequest) (string, error) {
	if err := h.check(); err != nil {
		return "", err
	}
	// The attester's clock is the one that judges the request.
	clock := newClock(req.Clock, slog.New(slog.DiscardHandler))
	c := &attesterCall{url: h.URL, client: h.client(clock), clock: clock, request: req}
	attestation, err := c.attest(ctx)
	if key, ok := c.mustEnrol(err); ok {
		if _, err := c.enrol(ctx, key); err != nil {
			return "", err
		}
		return c.attest(ctx)
	}
	return attestation, err
}

// attesterCall is one call of Attest, which may take several requests.
type attesterCall struct {
	url      string
	client   *http.Client
	clock    *clock
	request  AttestRequest
	enrolled bool // the attestation key, within this call
}

// attest goes through steps (b), (c) and (d) once.
func (c *attesterCall) attest(ctx context.Context) (string, error) {
	var challenge struct {
		Challenge string `json:"challenge"`
		PCRs      *[]int `json:"pcrs"` // those to quote; nil: no evidence is wanted
	}
	if err := c.post(ctx, "/challenge", nil, &challenge); err != nil {
		return "", err
	}
	if challenge.Challenge == "" {
		return "", c.unexpected("/challenge")
	}
	evidence, err := c.evidence(ctx, challenge.Challenge, challenge.PCRs)
	if err != nil {
		return "", err
	}
	start := time.Now()
	signed, err := c.sign(ctx, challenge.Challenge, evidence)
	c.request.Trace.evidence(ctx, start, evidenceRequest, err)
	if err != nil {
		return "", fmt.Errorf("client: sign request to attester: %w", err)
	}
	var answer struct {
		Attestation string `json:"client_attestation"`
	}
	if err := c.post(ctx, "/client-attestation", map[string]string{"request": signed}, &answer); err != nil {
		return "", err
	}
	if answer.Attestation == "" {
		return "", c.unexpected("/client-attestation")
	}
	return answer.Attestation, nil
}

func (h HTTPAttester) check() error {
	if _, err := endpoint.ParseIdentifier(h.URL); err != nil {
		return fmt.Errorf("client: attester URL %w", err)
	}
	return nil
}

func (c *attesterCall) sign(ctx context.Context, challenge string, evidence *evidenceMessage) (string, error) {
	options := (&jose.SignerOptions{EmbedJWK: true}).WithType(typeAttestationRequest)
	signer, err := jose.NewSigner(keystore.SigningKey(ctx, c.request.Key), options)
	if err != nil {
		return "", err
	}
	issued := c.clock.now()
	return jwt.Signed(signer).Claims(struct {
		Issuer    string           `json:"iss"`
		Audience  string           `json:"aud"`
		ID        string           `json:"jti"`
		IssuedAt  int64            `json:"iat"`
		Expiry    int64            `json:"exp"`
		Challenge string           `json:"challenge"`
		Evidence  *evidenceMessage `json:"evidence,omitempty"`
	}{
		Issuer:    c.request.ClientID,
		Audience:  c.url,
		ID:        rand.Text(),
		IssuedAt:  issued.Unix(),
		Expiry:    issued.Add(attestationRequestLifetime).Unix(),
		Challenge: challenge,
		Evidence:  evidence,
	}).Serialize()
}

// endpoint is the URL of one of the attester's endpoints.
func (c *attesterCall) endpoint(path string) string { return strings.TrimSuffix(c.url, "/") + path }

// post sends a JSON request, or none if body is nil, and reads a JSON answer.
func (c *attesterCall) post(ctx context.Context, path string, body, answer any) error {
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		if len(encoded) > maxAttesterRequest {
			return fmt.Errorf("client: the request to the attester's %s has %d bytes, more than the %d that it takes: the device's event logs are too large", path, len(encoded), maxAttesterRequest)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint(path), content)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAttesterUnavailable, err)
	}
	defer resp.Body.Close()
	received, err := io.ReadAll(io.LimitReader(resp.Body, maxAttesterAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAttesterUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return attesterError(c.endpoint(path), resp, received, c.clock.now())
	}
	if len(received) > maxAttesterAnswer || json.Unmarshal(received, answer) != nil {
		return c.unexpected(path)
	}
	return nil
}

// client returns h.Client, made to stop at redirects, which would carry the
// signed request to another place, and to tell clock what time the attester has.
func (h HTTPAttester) client(clock *clock) *http.Client {
	c := *http.DefaultClient
	if h.Client != nil {
		c = *h.Client
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = observer{c.Transport, clock, func(*url.URL) bool { return true }}
	return &c
}
