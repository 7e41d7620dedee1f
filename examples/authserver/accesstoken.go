// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/internal/strictjwt"
	"github.com/instancekey/instancekey/keystore"
)

const typAccessToken = "at+jwt"

// accessToken is what an access token says (RFC 9068, section 2.2).
type accessToken struct {
	Issuer   string           `json:"iss"`
	Audience string           `json:"aud"` // resource identifier, or the issuer
	Subject  string           `json:"sub"`
	ClientID string           `json:"client_id"`
	IssuedAt *jwt.NumericDate `json:"iat"`
	Expiry   *jwt.NumericDate `json:"exp"`
	ID       string           `json:"jti"`
	Scope    string           `json:"scope,omitempty"`

	// Confirmation is the DPoP key that the token is bound to (RFC 9449, section
	// 6); nil for a bearer token.
	Confirmation *confirmation `json:"cnf,omitempty"`
	// InstanceKey is the thumbprint of the Client Instance Key that got the
	// token, by which this server's own resource knows its holder, bearer token
	// or not.
	InstanceKey string `json:"client_instance_jkt"`
}

type confirmation struct {
	Thumbprint string `json:"jkt"`
}

// signAccessToken makes an access token, bound to the DPoP key if there is one.
func (s *Server) signAccessToken(instance *clientInstance, granted *grant, scope string) (string, error) {
	now := s.cfg.Now()
	claims := accessToken{
		Issuer:      s.cfg.Issuer,
		Audience:    s.cfg.Issuer,
		Subject:     instance.client.ID,
		ClientID:    instance.client.ID,
		IssuedAt:    jwt.NewNumericDate(now),
		Expiry:      jwt.NewNumericDate(now.Add(s.cfg.TokenLifetime)),
		ID:          rand.Text(),
		Scope:       scope,
		InstanceKey: instance.thumbprint,
	}
	if granted.resource != "" {
		claims.Audience = granted.resource
	}
	if instance.dpopThumbprint != "" {
		claims.Confirmation = &confirmation{instance.dpopThumbprint}
	}
	token, err := jwt.Signed(s.tokens.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("access token: %w", err)
	}
	return token, nil
}

// verifyAccessToken verifies an access token that was issued for audience (RFC
// 9068, section 4).
func (s *Server) verifyAccessToken(compact, audience string) (*accessToken, error) {
	const rule = "RFC 9068 4"
	parsed, err := strictjwt.Parse(compact, typAccessToken, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, refuse(errInvalidToken, rule, "access token: %v", err)
	}
	var token accessToken
	if err := parsed.Claims(s.tokens.public.Keys[0].Key, &token); err != nil {
		return nil, refuse(errInvalidToken, rule, "access token: %v", err)
	}
	switch {
	case token.Issuer != s.cfg.Issuer:
		return nil, refuse(errInvalidToken, rule, "access token of another issuer")
	case token.Audience != audience:
		return nil, refuse(errInvalidToken, rule, "access token is for %.200q", token.Audience)
	case token.Expiry == nil || !s.cfg.Now().Before(token.Expiry.Time()):
		return nil, refuse(errInvalidToken, rule, "access token has expired")
	}
	return &token, nil
}

// A tokenSigner signs access tokens with a key made at start.
type tokenSigner struct {
	signer jose.Signer
	public jose.JSONWebKeySet
}

func newTokenSigner() (*tokenSigner, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	kid, err := keystore.Thumbprint(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	private := jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private},
		(&jose.SignerOptions{}).WithType(typAccessToken))
	if err != nil {
		return nil, err
	}
	return &tokenSigner{signer, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}}}, nil
}
