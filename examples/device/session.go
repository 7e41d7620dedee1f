// SPDX-License-Identifier: Apache-2.0

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
	authorized := s.client.ResourceClientWith(s.tokens)
	var tries backoff
	works := false
	for {
		err := s.call(ctx, authorized)
		if ctx.Err() == nil {
			s.report.call(err)
		}
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, keystore.ErrKeyLost):
			return err
		case err != nil:
			pause = tries.next()
			s.warn("calls fail: trying again", err, pause)
			works = false
		default:
			if !works {
				s.log.Info("calls work", "resource", s.resource, "failures_before", tries.failures)
				s.told.forget()
			}
			works, tries = true, backoff{}
			pause = jitter(s.every)
			s.log.Debug("called", "resource", s.resource)
		}
		if err := s.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// call calls the resource once. The HTTP client adds the token, and gets another one
// if the resource refuses it: tokens are revoked, and a clock that was wrong makes them
// look younger than they are. Attestation and proofs are added below it.
func (s *session) call(ctx context.Context, to *http.Client) error {
	// Somebody may have to authorize the device first, which takes longer than a call may.
	if _, err := s.tokens.Token(ctx, s.resource); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.resource, nil)
	if err != nil {
		return err
	}
	resp, err := to.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// What a real device does with the answer is its own affair.
	if _, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("the resource answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return err
}
