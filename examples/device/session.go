package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
)

// callTimeout is how long one call may take, and one request for a token.
const callTimeout = time.Minute

// A session is the calls of a device while it has one key.
type session struct {
	*device
	client *client.Client
	tokens *tokens
}

// run calls the resource until ctx ends or the key is lost. Everything else
// passes, or is mended by somebody else: a server that is away comes back, a
// client that was blocked is allowed again. So there is no other error that a
// device would do better to end with.
func (s *session) run(ctx context.Context) error {
	var tries backoff
	for {
		err := s.call(ctx)
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, keystore.ErrKeyLost):
			return err
		case err != nil:
			pause = tries.next()
			s.log.Warn("call failed", "error", err, "again_in", pause)
		default:
			tries = backoff{}
			pause = jitter(s.every)
			s.log.Info("called", "resource", s.resource)
		}
		if err := s.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// call calls the resource once. If that refuses the token, it gets another one
// and tries again: tokens are revoked, and a clock that was wrong makes them look
// younger than they are.
func (s *session) call(ctx context.Context) error {
	status, err := s.request(ctx)
	if err == nil && status == http.StatusUnauthorized {
		s.tokens.drop()
		status, err = s.request(ctx)
	}
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("the resource answered %d %s", status, http.StatusText(status))
	}
	return err
}

// request sends one request with a token. Attestation and PoP are added by the
// HTTP client.
func (s *session) request(ctx context.Context) (status int, err error) {
	token, err := s.tokens.get(ctx)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.resource, nil)
	if err != nil {
		return 0, err
	}
	token.SetAuthHeader(req)
	resp, err := s.client.HTTPClient().Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// What a real device does with the answer is its own affair.
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}
