// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"github.com/instancekey/instancekey/transport"
)

// Health is what a Client knows of itself and its server, for a status page or a
// watchdog.
type Health struct {
	// AttestationExpiry is when the newest attestation expires, by the device's clock as
	// the Client corrects it. Zero: there is none yet, or the attester refused the
	// instance.
	AttestationExpiry time.Time

	// RenewalError is why the last call of the Attester failed. Nil: it brought an
	// attestation, or the Attester has not been called. If it matches
	// ErrAttestationRefused, somebody has to let the instance in again.
	RenewalError error

	// Metadata says whether the issuer's metadata is known.
	Metadata bool

	// Method is how the Client authenticates at the server. Empty: the metadata has to
	// tell, and is not known.
	Method transport.Method

	// SentAhead and UnusedAhead are how many of the proofs that were signed ahead
	// (Config.SignAhead) were sent, and how many were signed in vain.
	SentAhead, UnusedAhead int

	// ClockOffset is added to the device's clock, by what the server said of the time.
	ClockOffset time.Duration
}

// Health returns what the Client knows now. It sends nothing and waits for nothing.
func (c *Client) Health() Health {
	known, _ := c.known()
	h := Health{Metadata: known != nil, Method: c.knownMethod(), ClockOffset: c.clock.correction()}
	h.SentAhead, h.UnusedAhead = c.transport.SignedAhead()
	h.AttestationExpiry, h.RenewalError = c.attestations.health()
	return h
}

// health returns when the newest attestation expires, and why the last renewal failed.
func (a *attestations) health() (expiry time.Time, failed error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if newest := a.newest(); newest != nil {
		expiry = newest.expiry
	}
	return expiry, a.failed
}
