// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// An Attester gets the Client Attestation JWT for a Client Instance Key, in
// whatever way a vendor's Client Attester works: steps (b), (c) and (d), or (f).
// The draft leaves that way open ("Introduction"), so this interface is the
// place to bring your own; [HTTPAttester], [PushAttester] and [SelfAttester]
// come with this package.
//
// Attest is called when an attestation is missing, about to expire, or was
// refused by a server as not fresh enough, never twice at the same time by one
// Client. It returns the JWT in compact form. The Client checks it before it is
// used. Attest returns soon after ctx ends.
//
// Errors match [ErrAttestationRefused] if asking again will not help, and
// [ErrAttesterUnavailable] if it may: then an attestation that is still valid
// stays in use.
type Attester interface {
	Attest(ctx context.Context, req AttestRequest) (attestation string, err error)
}

// AttestRequest says what the attestation is for.
type AttestRequest struct {
	// ClientID is the OAuth client_id: the attestation's "sub", unless a profile
	// has another.
	ClientID string
	// Type is the attestation's "typ". Empty means the draft's,
	// oauth-client-attestation+jwt.
	Type string
	// Profile is the form of the draft that the server speaks, for attesters that
	// run inside this instance. Empty means the current one.
	Profile transport.Profile
	// Key is the Client Instance Key: its public half is the attestation's
	// "cnf", and it can sign what the Client Attester wants signed.
	Key keystore.Key
	// Rejected is the attestation that a server refused as not fresh enough;
	// "" if none was. The same one again will not do.
	Rejected string
	// SigningAlgs is what the server's metadata lists for the signature of
	// attestations, as JWS algorithm names. Empty means any.
	SigningAlgs []string
	// Issuer is the authorization server's issuer identifier, for attesters
	// that run inside this instance. A remote attester is never told it: it
	// would learn which servers an instance uses (draft, "Privacy
	// Considerations").
	Issuer string
	// Clock gives the time as the Client knows it, which may have been
	// corrected by what servers say. Nil means time.Now.
	Clock func() time.Time
	// Trace is the Client's, for attesters that tell how long they use the key. Nil
	// means no calls.
	Trace *Trace

	subject func(sub string) error // Deviations.CheckSubject
}

// String leaves Rejected out.
func (r AttestRequest) String() string {
	return fmt.Sprintf("client.AttestRequest{ClientID: %q, SigningAlgs: %q, rejected one: %t}", r.ClientID, r.SigningAlgs, r.Rejected != "")
}

// GoString is String.
func (r AttestRequest) GoString() string { return r.String() }

// LogValue is String.
func (r AttestRequest) LogValue() slog.Value { return slog.StringValue(r.String()) }

// unavailable is an error that transport.Error.Temporary knows as one that may
// pass.
type unavailable struct{}

func (unavailable) Error() string   { return "client: the attester is unavailable" }
func (unavailable) Temporary() bool { return true }

// What an Attester's failure means for the Client.
var (
	// ErrAttestationRefused: the Client Attester knows this instance and will
	// not attest it. The Client stops using the attestation it may still have.
	// It asks again after a minute, or after AttesterError.RetryAfter; requests
	// until then fail with this error.
	ErrAttestationRefused = errors.New("client: the attester refuses to attest this instance")

	// ErrAttesterUnavailable: the Client Attester cannot be asked now. The
	// Client keeps using the attestation it has while that is valid, and asks
	// for the next one each minute. Without a valid one each request asks again,
	// those at the same time by one call. If there is an AttesterError.RetryAfter,
	// the Client does not ask before, and requests without a valid attestation
	// fail until then with this error.
	ErrAttesterUnavailable error = unavailable{}

	// ErrInvalidAttestation: what the Attester gave cannot be used: not a
	// Client Attestation JWT, expired, for another client or another key, or
	// signed with an algorithm that the server does not list; then the Client
	// asks again for that list after a minute. It is found before anything is
	// sent to a server.
	ErrInvalidAttestation = errors.New("client: invalid attestation")
)
