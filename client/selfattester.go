// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

// SelfAttester attests the instance by itself, for clients that have no
// attester backend (draft, "Introduction"). Servers learn no more from it than
// from any key of the client's: they trust the attestation as far as they trust
// this instance with Key.
type SelfAttester struct {
	// Key signs the attestations: the key that the server knows the client's
	// attester by. It may be, but need not be, another key than the Client
	// Instance Key: softkey.OpenDir keeps one in a file, keystore.FromSigner
	// makes one of a crypto.Signer. Required.
	Key keystore.Key
	// KeyID is the "kid" header. Empty means the key's RFC 7638 thumbprint.
	KeyID string
	// Certificates are the key's certificate and those above it, for servers
	// that find the key by the "x5c" header (RFC 7515, section 4.1.6); the "kid"
	// stays beside it. A trust anchor at their end is not sent, and a certificate
	// that signs itself is an error, as is one that does not fit; see
	// [keystore.X5C]. Empty means no x5c.
	Certificates []*x509.Certificate
	// Issuer is the "iss". The draft has none since -08, and servers of older
	// drafts require it. Empty means none, but the client_id if the Client's
	// Profile is one with "iss" and Claims has none.
	Issuer string
	// Subject is the "sub", where a profile of the draft has another than the
	// client_id; see Deviations. Empty means the client_id.
	Subject string
	// Lifetime of an attestation. Zero means 5 minutes. Of less than a second
	// none is made.
	Lifetime time.Duration
	// Rounding makes "iat" and "exp" multiples of it, so that servers recognize an
	// instance less well by the second in which it was attested (draft -12,
	// "Client Instance Tracking Across Authorization Servers or Resource
	// Servers"). Both are rounded down: an attestation looks up to Rounding older
	// than it is, and expires as much earlier. One that replaces an attestation
	// which a server has refused as not fresh enough is not rounded. At most half
	// of Lifetime, in whole seconds. Zero means no rounding.
	Rounding time.Duration
	// Claims are added to the attestation, for servers that want to see more.
	// They cannot replace sub, iat, exp and cnf, nor Issuer.
	Claims map[string]any
}

const selfAttestationLifetime = 5 * time.Minute

// Attest implements Attester. Its errors are those of Key.
func (s SelfAttester) Attest(ctx context.Context, req AttestRequest) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	cnf, err := keystore.JWK(req.Key.Public())
	if err != nil {
		return "", err
	}
	cnf.Algorithm = req.Key.Algorithm() // Keycloak verifies no proof without it
	options, err := s.header(req)
	if err != nil {
		return "", err
	}
	claims := maps.Clone(s.Claims)
	if claims == nil {
		claims = make(map[string]any)
	}
	if iss := s.issuer(req); iss != "" {
		claims["iss"] = iss
	}
	issued, expiry := s.times(req)
	claims["sub"] = cmp.Or(s.Subject, req.ClientID)
	claims["iat"] = issued
	claims["exp"] = expiry
	claims["cnf"] = map[string]any{"jwk": cnf}

	signer, err := jose.NewSigner(keystore.SigningKey(ctx, s.Key), options)
	if err != nil {
		return "", fmt.Errorf("client: self-attestation: %w", err)
	}
	attestation, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("client: self-attestation: %w", err)
	}
	return attestation, nil
}

// header returns the JOSE header but for its alg: typ, kid, and x5c if there are
// certificates.
func (s SelfAttester) header(req AttestRequest) (*jose.SignerOptions, error) {
	kid := s.KeyID
	if kid == "" {
		var err error
		if kid, err = keystore.Thumbprint(s.Key.Public()); err != nil {
			return nil, err
		}
	}
	options := new(jose.SignerOptions).WithType(jose.ContentType(req.typ())).WithHeader("kid", kid)
	if len(s.Certificates) == 0 {
		return options, nil
	}
	x5c, err := keystore.X5C(s.Certificates, s.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("client: self-attestation: %w", err)
	}
	return options.WithHeader("x5c", x5c), nil
}

func (s SelfAttester) issuer(req AttestRequest) string {
	if _, claimed := s.Claims["iss"]; s.Issuer != "" || claimed || !req.Profile.HasIssuer() {
		return s.Issuer
	}
	return req.ClientID
}

// times returns iat and exp.
func (s SelfAttester) times(req AttestRequest) (issued, expiry int64) {
	now := time.Now()
	if req.Clock != nil {
		now = req.Clock()
	}
	lifetime := cmp.Or(s.Lifetime, selfAttestationLifetime)
	unit := int64(s.Rounding / time.Second)
	if unit == 0 || req.Rejected != "" {
		return now.Unix(), now.Add(lifetime).Unix()
	}
	issued = now.Unix() / unit * unit
	return issued, issued + int64(lifetime/time.Second)/unit*unit
}

func (s SelfAttester) check() error {
	lifetime := cmp.Or(s.Lifetime, selfAttestationLifetime)
	switch {
	case s.Key == nil:
		return errors.New("client: SelfAttester needs a Key")
	case lifetime < time.Second:
		return errors.New("client: SelfAttester's Lifetime is shorter than a second")
	case s.Rounding < 0 || s.Rounding%time.Second != 0 || s.Rounding > lifetime/2:
		return errors.New("client: SelfAttester's Rounding must be whole seconds, and at most half of Lifetime")
	}
	if len(s.Certificates) > 0 {
		if _, err := keystore.X5C(s.Certificates, s.Key.Public()); err != nil {
			return fmt.Errorf("client: SelfAttester: %w", err)
		}
	}
	return nil
}
