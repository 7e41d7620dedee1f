// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

const typAttestation = "oauth-client-attestation+jwt"

// Issue makes a Client Attestation JWT for a public key without a request from
// its holder: step (f), an instance provisioned beforehand. The caller vouches
// for the key. clientID must be one of the attester's clients.
func (s *Server) Issue(clientID string, key crypto.PublicKey) (string, error) {
	if !slices.Contains(s.cfg.Clients, clientID) {
		return "", fmt.Errorf("attester: client %q is not served here", clientID)
	}
	attestation, err := s.issue(clientID, key, s.cfg.Lifetime, nil)
	if err != nil {
		return "", fmt.Errorf("attester: %w", err)
	}
	return attestation, nil
}

// issue makes a Client Attestation JWT (section 4). extra are the claims that
// evidence justifies: they come before Config.Claims, and the draft's own before both.
func (s *Server) issue(clientID string, key crypto.PublicKey, lifetime time.Duration, extra map[string]any) (string, error) {
	// The required members alone: nothing else that a sender may have put into
	// his JWK gets this attester's signature, and no private key does.
	jwk, err := keystore.JWK(key)
	if err != nil {
		return "", err
	}
	if alg, err := algorithmOf(key); err == nil {
		jwk.Algorithm = string(alg) // Keycloak verifies no proof without it
	}
	issued, expiry := s.times(lifetime)
	claims := make(map[string]any)
	maps.Copy(claims, s.cfg.Claims)
	maps.Copy(claims, extra)
	maps.Copy(claims, map[string]any{
		"sub": clientID,
		"iat": issued,
		"exp": expiry,
		"cnf": map[string]any{"jwk": jwk},
	})
	if s.cfg.Issuer != "" {
		claims["iss"] = s.cfg.Issuer
	}
	return jwt.Signed(s.signer).Claims(claims).Serialize()
}

// times returns iat and exp. Rounded, both are rounded down: nothing lives longer
// than its lifetime.
func (s *Server) times(lifetime time.Duration) (issued, expiry int64) {
	now, life, unit := s.cfg.Now().Unix(), int64(lifetime/time.Second), int64(s.cfg.Rounding/time.Second)
	if unit == 0 {
		return now, now + life
	}
	issued = now / unit * unit
	return issued, issued + life/unit*unit
}

// newSigner checks the attester's key and fixes the JOSE header: typ, alg, kid
// and x5c, one of them at least (sections 4 and 10.8).
func newSigner(key jose.JSONWebKey) (jose.Signer, error) {
	if key.IsPublic() || !key.Valid() {
		return nil, errors.New("not a private key")
	}
	public := key.Public().Key
	alg, err := algorithmOf(public)
	if err != nil {
		return nil, err
	}
	if key.Algorithm != "" && key.Algorithm != string(alg) {
		return nil, fmt.Errorf("alg %q is not that of the key, %s", key.Algorithm, alg)
	}
	options := (&jose.SignerOptions{}).WithType(typAttestation)
	signingKey := jose.JSONWebKey{Key: key.Key, KeyID: key.KeyID}
	if len(key.Certificates) > 0 {
		x5c, err := keystore.X5C(key.Certificates, public)
		if err != nil {
			return nil, err
		}
		options = options.WithHeader("x5c", x5c)
	} else if key.KeyID == "" {
		return nil, errors.New("no kid and no certificates: nobody could find the key")
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: signingKey}, options)
}

// algorithmOf returns the algorithm that keys of this kind sign with.
func algorithmOf(key crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
	case ed25519.PublicKey:
		return jose.EdDSA, nil
	}
	return "", fmt.Errorf("%T is no key for signing attestations: use ECDSA or Ed25519", key)
}
