package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

// oldPoPLifetime is how long a PoP for a server that wants "exp" is good. The
// server's own window for "iat" is usually shorter.
const oldPoPLifetime = time.Minute

// reserved are the claims of a PoP JWT that Config.Claims cannot set: those of
// the draft, of its earlier versions, and of BindMessage.
var reserved = []string{"aud", "jti", "iat", "challenge", "iss", "sub", "nbf", "exp", "nonce", "cnf", "req_hash"}

// signPoP makes a Client Attestation PoP JWT (draft, "Client Attestation PoP
// JWT"). The audience is a string, not an array of one, which servers refuse.
func (t *Transport) signPoP(ctx context.Context, s *server, a attempt) (string, error) {
	return t.instance.sign(ctx, typePoP, false, func(now time.Time) any {
		claims := map[string]any{
			"aud": s.audience,
			"jti": rand.Text(),
			"iat": now.Unix(),
		}
		if challenge := a.challenge.value(); challenge != "" {
			claims["challenge"] = challenge
		}
		if s.profile.HasIssuer() {
			claims["iss"] = t.clientID
		}
		if s.profile == ProfileOpenID4VCI {
			claims["nbf"] = now.Unix()
			claims["exp"] = now.Add(oldPoPLifetime).Unix()
			if challenge := a.challenge.value(); challenge != "" {
				claims["nonce"] = challenge
			}
		}
		if a.reqHash != "" {
			claims["req_hash"] = a.reqHash
		}
		maps.Copy(claims, a.claims)
		return claims
	})
}

// extraClaims returns the claims that the caller's hook adds.
func (t *Transport) extraClaims(req *http.Request, s *server) (map[string]any, error) {
	if t.claims == nil || !s.sendsPoP() {
		return nil, nil
	}
	claims, err := t.claims(req)
	if err != nil {
		return nil, err
	}
	for _, name := range reserved {
		if _, ok := claims[name]; ok {
			return nil, fmt.Errorf("the claim %q is not Config.Claims's to set", name)
		}
	}
	return claims, nil
}

// signDPoP makes a DPoP proof JWT (RFC 9449, section 4.2) for a request with
// that token, "" for none.
func signDPoP(ctx context.Context, key *signer, req *http.Request, nonce, token string) (string, error) {
	// Without query, fragment and user information; with the path that the
	// request line has.
	location := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: cmp.Or(req.URL.Path, "/"), RawPath: req.URL.RawPath}
	return key.sign(ctx, typeDPoP, true, func(now time.Time) any {
		claims := map[string]any{
			"jti": rand.Text(),
			"htm": cmp.Or(req.Method, http.MethodGet), // as net/http sends it
			"htu": location.String(),
			"iat": now.Unix(),
		}
		if nonce != "" {
			claims["nonce"] = nonce
		}
		if token != "" {
			sum := sha256.Sum256([]byte(token))
			claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
		}
		return claims
	})
}

// A signer makes JWTs with one key, one at a time: a TPM does not sign two at
// once, and a JWT whose "iat" was fixed before it waited in a queue would be
// old when it is sent.
type signer struct {
	key   keystore.Key
	now   func() time.Time
	trace *Trace
	queue *Queue
}

// A Queue is where the signatures of one key wait for their turn. Transports
// over one key share it.
type Queue struct {
	slot chan struct{} // capacity 1; a channel and not a mutex, so that waiting ends with the context
}

// NewQueue returns an empty Queue.
func NewQueue() *Queue { return &Queue{make(chan struct{}, 1)} }

// sign makes the claims, once it is this JWT's turn, and signs them. embed puts
// the public key into the header.
func (s *signer) sign(ctx context.Context, typ jose.ContentType, embed bool, claims func(now time.Time) any) (token string, err error) {
	select {
	case s.queue.slot <- struct{}{}:
		defer func() { <-s.queue.slot }()
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
