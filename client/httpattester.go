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

	maxAttesterAnswer = 256 << 10 // bytes
)

// AttesterError is a Client Attester's own refusal, by its status and by the
// error code of its answer. It matches ErrAttestationRefused for 403 and
// ErrAttesterUnavailable for 429 and 5xx.
type AttesterError struct {
	Status      int    // HTTP status
	Code        string // "error" of the answer, such as "policy_violation"; "" if it had none
	Description string // "error_description" of the answer
	RetryAfter  string // Retry-After header field, if any
}

func (e *AttesterError) Error() string {
	text := fmt.Sprintf("client: attester answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		text += fmt.Sprintf(": %.100q", e.Code)
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%.200q)", e.Description)
	}
	if e.RetryAfter != "" {
		text += fmt.Sprintf(", retry after %.40q", e.RetryAfter)
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

// Attest implements Attester. What the attester answers with is an
// *AttesterError; an attester that does not answer is ErrAttesterUnavailable.
func (h HTTPAttester) Attest(ctx context.Context, req AttestRequest) (string, error) {
	if err := h.check(); err != nil {
		return "", err
	}
	// The attester's clock is the one that judges the request.
	clock := newClock(req.Clock, slog.New(slog.DiscardHandler))
	client := h.client(clock)
	var challenge struct {
		Challenge string `json:"challenge"`
	}
	if err := h.post(ctx, client, "/challenge", nil, &challenge); err != nil {
		return "", err
	}
	if challenge.Challenge == "" {
		return "", errors.New("client: attester gave no challenge")
	}
	signed, err := h.sign(ctx, req, challenge.Challenge, clock.now())
	if err != nil {
		return "", fmt.Errorf("client: sign request to attester: %w", err)
	}
	var answer struct {
		Attestation string `json:"client_attestation"`
	}
	if err := h.post(ctx, client, "/client-attestation", map[string]string{"request": signed}, &answer); err != nil {
		return "", err
	}
	return answer.Attestation, nil
}

func (h HTTPAttester) check() error {
	u, err := endpoint.Parse(h.URL)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		err = errors.New("has a query")
	}
	if err != nil {
		return fmt.Errorf("client: attester URL %w", err)
	}
	return nil
}

func (h HTTPAttester) sign(ctx context.Context, req AttestRequest, challenge string, issued time.Time) (string, error) {
	options := (&jose.SignerOptions{EmbedJWK: true}).WithType(typeAttestationRequest)
	signer, err := jose.NewSigner(keystore.SigningKey(ctx, req.Key), options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(struct {
		Issuer    string `json:"iss"`
		Audience  string `json:"aud"`
		ID        string `json:"jti"`
		IssuedAt  int64  `json:"iat"`
		Expiry    int64  `json:"exp"`
		Challenge string `json:"challenge"`
	}{
		Issuer:    req.ClientID,
		Audience:  h.URL,
		ID:        rand.Text(),
		IssuedAt:  issued.Unix(),
		Expiry:    issued.Add(attestationRequestLifetime).Unix(),
		Challenge: challenge,
	}).Serialize()
}

// post sends a JSON request, or none if body is nil, and reads a JSON answer.
func (h HTTPAttester) post(ctx context.Context, client *http.Client, path string, body, answer any) error {
	var content io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(h.URL, "/")+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAttesterUnavailable, err)
	}
	defer resp.Body.Close()
	received, err := io.ReadAll(io.LimitReader(resp.Body, maxAttesterAnswer+1))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAttesterUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		return attesterError(resp, received)
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
	c.Transport = observer{c.Transport, clock}
	return &c
}

func attesterError(resp *http.Response, body []byte) error {
	var answer struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(body, &answer) // an answer without a code still has its status
	return &AttesterError{
		Status:      resp.StatusCode,
		Code:        answer.Code,
		Description: answer.Description,
		RetryAfter:  resp.Header.Get("Retry-After"),
	}
}
