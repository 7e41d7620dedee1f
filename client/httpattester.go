package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
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
// With its challenge the attester says whether it wants evidence of where the
// key is kept and what the device has booted. Then the key must be a
// keystore.AttestableKey, or the error is ErrNoEvidence. The device's attestation
// key is enrolled with the attester when there is no valid certificate for it, and
// once more when the attester does not know it. Evidence names the device to the
// attester by its TPM; see tpm.Config.EventLog for what it tells of the boot.
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

	// maxRetryAfter bounds how long an attester can silence an instance that it
	// may not be able to reach otherwise.
	maxRetryAfter = time.Hour

	maxAttesterRequest = 1 << 20   // bytes
	maxAttesterAnswer  = 256 << 10 // bytes
)

// AttesterError is a Client Attester's own refusal, by its status and by the
// error code of its answer. It matches ErrAttestationRefused for 403 and
// ErrAttesterUnavailable for 429 and 5xx.
type AttesterError struct {
	Status      int    // HTTP status
	Code        string // "error" of the answer, such as "policy_violation"; "" if it had none
	Description string // "error_description" of the answer
	// RetryAfter is how long the attester wants to be left alone, by its
	// Retry-After header field, and an hour at most; 0 if it does not say.
	RetryAfter time.Duration
}

// Error quotes the answer's code and description, cut where they are long.
func (e *AttesterError) Error() string {
	text := fmt.Sprintf("client: attester answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		text += fmt.Sprintf(": %.100q", e.Code)
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%.200q)", e.Description)
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %s", e.RetryAfter)
	}
	return text
}

// Is reports what the status means for asking again.
func (e *AttesterError) Is(target error) bool {
	switch target {
	case ErrAttestationRefused:
		return e.Status == http.StatusForbidden
	case ErrAttesterUnavailable:
		return e.Status == http.StatusTooManyRequests || e.Status >= 500
	}
	return false
}

// Temporary reports whether asking again later may help.
func (e *AttesterError) Temporary() bool { return e.Is(ErrAttesterUnavailable) }

// Attest implements Attester. A refusal is an *AttesterError; an attester that
// cannot be reached is ErrAttesterUnavailable. Errors of the key match the
// sentinels of package keystore, or ErrNoEvidence.
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
		return "", errors.New("client: attester gave no challenge")
	}
	evidence, err := c.evidence(ctx, challenge.Challenge, challenge.PCRs)
	if err != nil {
		return "", err
	}
	signed, err := c.sign(ctx, challenge.Challenge, evidence)
	if err != nil {
		return "", fmt.Errorf("client: sign request to attester: %w", err)
	}
	var answer struct {
		Attestation string `json:"client_attestation"`
	}
	if err := c.post(ctx, "/client-attestation", map[string]string{"request": signed}, &answer); err != nil {
		return "", err
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

// post sends a JSON request, or none if body is nil, and reads a JSON answer.
func (c *attesterCall) post(ctx context.Context, path string, body, answer any) error {
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		if len(encoded) > maxAttesterRequest {
			return fmt.Errorf("client: the request to the attester's %s has %d bytes, more than the %d that it takes: the device's event log is too large", path, len(encoded), maxAttesterRequest)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.url, "/")+path, content)
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
		return attesterError(resp, received, c.clock.now())
	}
	if len(received) > maxAttesterAnswer || json.Unmarshal(received, answer) != nil {
		return fmt.Errorf("client: attester's answer to %s is not the expected JSON", path)
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
	c.Transport = observer{c.Transport, clock, true}
	return &c
}

func attesterError(resp *http.Response, body []byte, now time.Time) error {
	var answer struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(body, &answer) // an answer without a code still has its status
	return &AttesterError{
		Status:      resp.StatusCode,
		Code:        answer.Code,
		Description: answer.Description,
		RetryAfter:  retryAfter(resp.Header.Get("Retry-After"), now),
	}
}

// retryAfter reads a Retry-After header field (RFC 9110, section 10.2.3): seconds,
// or a date.
func retryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}
