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

// An Attester gets the Client Attestation JWT for a Client Instance Key: steps (b), (c)
// and (d), or (f). The draft does not say how a client instance and its Client Attester
// talk ("Introduction"). A vendor implements this interface for its own protocol. This
// package has [HTTPAttester], [PushAttester] and [SelfAttester].
//
// A Client calls Attest when it has no attestation, when its attestation is about to
// expire, and when a server refused the attestation as not fresh enough. One Client never
// calls Attest twice at the same time. Attest returns the JWT in compact form, which the
// Client checks before use. Attest must return soon after ctx ends.
//
// An error must match [ErrAttestationRefused] if asking again will not help, and
// [ErrAttesterUnavailable] if it may help. After the latter the Client goes on using an
// attestation that is still valid.
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
	// Rejected is the attestation that a server refused as not fresh enough. Attest must
	// return another one. "" means that no attestation was refused.
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
	// ErrAttestationRefused: the Client Attester refuses to attest this instance. The
	// Client stops using the attestation that it has. The Client asks again after a
	// minute, or after AttesterError.RetryAfter. Until then requests fail with this
	// error.
	ErrAttestationRefused = errors.New("client: the attester refuses to attest this instance")

	// ErrAttesterUnavailable: the Client Attester cannot be asked now. While the Client
	// has a valid attestation, it goes on using that, and asks for the next one each
	// minute. Without a valid attestation each request makes the Client ask again;
	// requests at the same time share one call. After an AttesterError with RetryAfter
	// the Client waits that long before it asks. Requests without a valid attestation
	// fail with this error until then.
	ErrAttesterUnavailable error = unavailable{}

	// ErrInvalidAttestation: the Client cannot use what the Attester returned. It is not
	// a Client Attestation JWT, has expired, is for another client or another key, or is
	// signed with an algorithm that the server does not list. In the last case the Client
	// asks the server for its list again after a minute. The Client finds this out before
	// it sends anything to a server.
	ErrInvalidAttestation = errors.New("client: invalid attestation")
)
