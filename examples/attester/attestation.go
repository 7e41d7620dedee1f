package attester

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	attestation, err := s.issue(clientID, key, nil)
	if err != nil {
		return "", fmt.Errorf("attester: %w", err)
	}
	return attestation, nil
}

// issue makes a Client Attestation JWT (section 4). extra are the claims that
// evidence justifies; they can't replace the draft's own.
func (s *Server) issue(clientID string, key crypto.PublicKey, extra map[string]any) (string, error) {
	// The required members alone: nothing else that a sender may have put into
	// his JWK gets this attester's signature, and no private key does.
	jwk, err := keystore.JWK(key)
	if err != nil {
		return "", err
	}
	now := s.cfg.Now()
	claims := maps.Clone(extra)
	if claims == nil {
		claims = make(map[string]any)
	}
	delete(claims, "iss")
	maps.Copy(claims, map[string]any{
		"sub": clientID,
		"iat": jwt.NewNumericDate(now),
		"exp": jwt.NewNumericDate(now.Add(s.cfg.Lifetime)),
		"cnf": map[string]any{"jwk": jwk},
	})
	if s.cfg.Issuer != "" {
		claims["iss"] = s.cfg.Issuer
	}
	return jwt.Signed(s.signer).Claims(claims).Serialize()
}

// newSigner checks the attester's key and fixes the JOSE header: typ, alg, and
// kid or x5c (sections 4 and 10.8).
func newSigner(key jose.JSONWebKey) (jose.Signer, error) {
	if key.IsPublic() || !key.Valid() {
		return nil, errors.New("not a private key")
	}
	alg, err := algorithmOf(key.Key)
	if err != nil {
		return nil, err
	}
	if key.Algorithm != "" && key.Algorithm != string(alg) {
		return nil, fmt.Errorf("alg %q is not that of the key, %s", key.Algorithm, alg)
	}
	options := (&jose.SignerOptions{}).WithType(typAttestation)
	signingKey := jose.JSONWebKey{Key: key.Key, KeyID: key.KeyID}
	switch {
	case len(key.Certificates) > 0:
		leaf, ok := key.Certificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !leaf.Equal(key.Public().Key) {
			return nil, errors.New("the first certificate is for another key")
		}
		chain := make([]string, len(key.Certificates))
		for i, cert := range key.Certificates {
			chain[i] = base64.StdEncoding.EncodeToString(cert.Raw)
		}
		options = options.WithHeader("x5c", chain)
		signingKey.KeyID = "" // one way to find the key, not two
	case key.KeyID == "":
		return nil, errors.New("no kid and no certificates: nobody could find the key")
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: signingKey}, options)
}

func algorithmOf(key any) (jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	}
	return "", fmt.Errorf("%T is no key for signing attestations: use ECDSA or Ed25519", key)
}
