package transport

import (
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

// challengeFetcher returns a function that asks the challenge endpoint of s
// (draft, "Challenge Endpoint") and keeps the DPoP nonce that may come along. A
// response without a challenge is no error: the endpoint may exist for nonces
// alone.
func (t *Transport) challengeFetcher(s *server, url string) func(context.Context) (string, error) {
	return func(ctx context.Context) (challenge string, err error) {
		defer t.trace.challenge(ctx, time.Now(), s.audience, &err)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
		if err != nil {
			return "", err
		}
		req.Header.Set("Accept", "application/json")
		resp, err := t.base.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer discard(resp.Body)
		s.nonces.store(resp.Header)
		if resp.StatusCode != http.StatusOK {
			return "", fmt.Errorf("challenge endpoint answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
		if err != nil {
			return "", fmt.Errorf("challenge endpoint: %w", err)
		}
		if len(body) > maxBody {
			return "", fmt.Errorf("challenge endpoint answered more than %d bytes", maxBody)
		}
		var answer struct {
			Challenge string `json:"attestation_challenge"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return "", errors.New("challenge endpoint did not answer with a JSON object")
		}
		s.nonces.asked()
		if answer.Challenge == "" {
			return challengeIn(resp.Header), nil
		}
		if len(answer.Challenge) > maxChallenge {
			return "", fmt.Errorf("challenge endpoint gave a challenge of %d bytes, more than %d", len(answer.Challenge), maxChallenge)
		}
		return answer.Challenge, nil
	}
}

// challengeIn returns the challenge that came in a response's header, "" if
// there is none or it is too long to send back.
func challengeIn(h http.Header) string {
	value := h.Get(HeaderChallenge)
	if len(value) > maxChallenge {
		return ""
	}
	return value
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
