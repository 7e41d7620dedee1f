// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/instancekey/instancekey/transport"
)

// Renew gets a new attestation from the attester now, even if the present one is still
// valid. Call it after a device was repaired, for example, or after the attester's key
// was changed. The Client uses the present attestation until it has the new one, and goes
// on using it if the attester cannot be reached. Callers that come at the same time share
// one call of the Attester.
//
// Errors are of type *[transport.Error], with those of the Attester behind it, or match
// [ErrClosed].
func (c *Client) Renew(ctx context.Context) error {
	defer c.clock.tell(ctx)
	var algs []string
	if s, _ := c.known(); s != nil {
		algs = s.metadata.AttestationSigningAlgs
	}
	_, err := c.attestations.renewals.Do(ctx, "now "+listKey(algs), func(ctx context.Context) (string, error) {
		return c.attestations.renew(ctx, "", algs, true)
	})
	if err = c.waited(c.issuer, transport.StepAttestation, err); err == nil || errors.Is(err, ErrClosed) || errors.As(err, new(*transport.Error)) {
		return err
	}
	return &transport.Error{Audience: c.issuer, Thumbprint: c.thumbprint, Step: transport.StepAttestation, Err: err}
}

// DropAttestation forgets the attestations that the Client has, and deletes the one in
// Config.Cache. The next request makes the Client ask the attester. An error is that of
// the cache. A restart would then find the old attestation again.
func (c *Client) DropAttestation(ctx context.Context) error {
	defer c.clock.tell(ctx)
	if err := c.attestations.drop(ctx); err != nil {
		return fmt.Errorf("client: attestation stays in the cache: %w", err)
	}
	return nil
}

// drop waits for a renewal that is under way, whose attestation would come after it.
func (a *attestations) drop(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	a.cached = true // there is nothing to look for
	clear(a.held)
	a.mu.Unlock()
	return a.uncache(ctx)
}
