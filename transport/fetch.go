// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	// fetchTimeout bounds a challenge fetch that several requests wait for and
	// that therefore ends with none of them.
	fetchTimeout = 30 * time.Second

	// drainTimeout bounds the reading of a response that is dropped: what is on
	// its way has come by then, and a connection is not worth more.
	drainTimeout = 200 * time.Millisecond

	maxBody      = 64 << 10 // bytes read of a challenge or error response
	maxDrain     = 4 << 10  // bytes read of a response that is dropped, to reuse its connection
	maxChallenge = 4 << 10  // bytes of a challenge: it goes into a request header
)

// ask asks an audience's challenge endpoint (draft, "Challenge Endpoint"). A response
// without a challenge is no error: the endpoint may exist for nonces alone.
func (t *Transport) ask(ctx context.Context, audience, url string) (offered offer, err error) {
	start := time.Now()
	defer func() { t.trace.challenge(ctx, start, audience, err) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return offer{}, err
	}
	req.Header.Set("Accept", "application/json")
	// Nothing is sent under this name. It tells net/http that the request may be
	// repeated when a reused connection turns out to be dead.
	req.Header["Idempotency-Key"] = nil
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return offer{}, err
	}
	defer discard(resp.Body)
	offered = offerIn(resp.Header)
	if resp.StatusCode != http.StatusOK {
		return offered, fmt.Errorf("challenge endpoint answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return offered, fmt.Errorf("challenge endpoint: %w", err)
	}
	if len(body) > maxBody {
		return offered, fmt.Errorf("challenge endpoint answered more than %d bytes", maxBody)
	}
	var answer struct {
		Challenge string `json:"attestation_challenge"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return offered, errors.New("challenge endpoint did not answer with a JSON object")
	}
	if len(answer.Challenge) > maxChallenge {
		return offered, fmt.Errorf("challenge endpoint gave a challenge of %d bytes, more than %d", len(answer.Challenge), maxChallenge)
	}
	offered.challenge = cmp.Or(answer.Challenge, offered.challenge)
	return offered, nil
}

// discard closes a response body that nobody will read, after reading what
// little may be left of it so that the connection can be used again. Closing it
// ends a read that waits for more.
func discard(body io.ReadCloser) {
	stalled := time.AfterFunc(drainTimeout, func() { body.Close() })
	_, _ = io.CopyN(io.Discard, body, maxDrain) // its errors are those of a connection nobody needs
	if stalled.Stop() {
		body.Close()
	}
}
