package transport

import (
	"context"
	"crypto/rand"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

// popClaims are the claims of a Client Attestation PoP JWT (draft, "Client
// Attestation PoP JWT"). jwt.Claims is not used: it writes a single audience
// as an array, which servers refuse.
type popClaims struct {
	Audience  string `json:"aud"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"` // seconds
	Challenge string `json:"challenge,omitempty"`

	// Of drafts up to -07 only; to later ones they are unknown claims, which
	// verifiers ignore.
	Issuer    string `json:"iss,omitempty"`
	NotBefore int64  `json:"nbf,omitempty"`
	Expiry    int64  `json:"exp,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

// oldPoPLifetime is how long a PoP for a server that wants "exp" is good. The
// server's own window for "iat" is usually shorter.
const oldPoPLifetime = time.Minute

func (t *Transport) signPoP(ctx context.Context, s *server, challenge string) (string, error) {
	return t.instance.sign(ctx, typePoP, false, func(now time.Time) any {
		claims := popClaims{
			Audience:  s.issuer,
			ID:        rand.Text(),
			IssuedAt:  now.Unix(),
			Challenge: challenge,
		}
		if s.profile == ProfileOpenID4VCI {
			claims.Issuer = t.clientID
			claims.NotBefore = now.Unix()
			claims.Expiry = now.Add(oldPoPLifetime).Unix()
			claims.Nonce = challenge
		}
		return claims
	})
}

// dpopClaims are the claims of a DPoP proof JWT (RFC 9449, section 4.2).
type dpopClaims struct {
	ID       string `json:"jti"`
	Method   string `json:"htm"`
	URL      string `json:"htu"`
	IssuedAt int64  `json:"iat"` // seconds
	Nonce    string `json:"nonce,omitempty"`
}

func signDPoP(ctx context.Context, key *signer, method string, target *url.URL, nonce string) (string, error) {
	// Without query, fragment and user information.
	location := url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path, RawPath: target.RawPath}
	return key.sign(ctx, typeDPoP, true, func(now time.Time) any {
		return dpopClaims{
			ID:       rand.Text(),
			Method:   method,
			URL:      location.String(),
			IssuedAt: now.Unix(),
			Nonce:    nonce,
		}
	})
}

// A signer makes JWTs with one key, one at a time: a TPM does not sign two at
// once, and a JWT whose "iat" was fixed before it waited in a queue would be
// old when it is sent.
type signer struct {
	key   keystore.Key
	now   func() time.Time
	trace *Trace
	slot  chan struct{} // capacity 1; a channel and not a mutex, so that waiting ends with the context
}

func newSigner(key keystore.Key, now func() time.Time, trace *Trace) *signer {
	return &signer{key: key, now: now, trace: trace, slot: make(chan struct{}, 1)}
}

// sign makes the claims, once it is this JWT's turn, and signs them. embed puts
// the public key into the header.
func (s *signer) sign(ctx context.Context, typ jose.ContentType, embed bool, claims func(now time.Time) any) (token string, err error) {
	select {
	case s.slot <- struct{}{}:
		defer func() { <-s.slot }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer s.trace.signature(ctx, time.Now(), &err)

	options := (&jose.SignerOptions{EmbedJWK: embed}).WithType(typ)
	joseSigner, err := jose.NewSigner(keystore.SigningKey(ctx, s.key), options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(joseSigner).Claims(claims(s.now())).Serialize()
}
