package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	// Subject is the "sub", where a profile of the draft has another than the
	// client_id; see Deviations. Empty means the client_id.
	Subject string
	// Lifetime of an attestation. Zero means 5 minutes.
	Lifetime time.Duration
	// Claims are added to the attestation, for servers that want to see more.
	// They cannot replace sub, iat, exp and cnf.
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
	kid := s.KeyID
	if kid == "" {
		if kid, err = keystore.Thumbprint(s.Key.Public()); err != nil {
			return "", err
		}
	}
	lifetime := cmp.Or(s.Lifetime, selfAttestationLifetime)
	issued := time.Now()
	if req.Clock != nil {
		issued = req.Clock()
	}

	claims := make(map[string]any, len(s.Claims)+4)
	for name, value := range s.Claims {
		claims[name] = value
	}
	claims["sub"] = cmp.Or(s.Subject, req.ClientID)
	claims["iat"] = issued.Unix()
	claims["exp"] = issued.Add(lifetime).Unix()
	claims["cnf"] = map[string]any{"jwk": cnf}

	options := new(jose.SignerOptions).WithType(jose.ContentType(req.typ())).WithHeader("kid", kid)
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

func (s SelfAttester) check() error {
	if s.Key == nil {
		return errors.New("client: SelfAttester needs a Key")
	}
	return nil
}
