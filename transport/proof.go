// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// oldPoPLifetime is how long a PoP for a server that wants "exp" is good. The
// server's own window for "iat" is usually shorter.
const oldPoPLifetime = time.Minute

// reserved are the claims of a PoP JWT that Config.Claims cannot set: those of
// the draft, of its earlier versions, and of BindMessage.
var reserved = []string{"aud", "jti", "iat", "challenge", "iss", "sub", "nbf", "exp", "nonce", "cnf", "req_hash"}

// popClaims are the claims of a Client Attestation PoP JWT (draft, "Client
// Attestation PoP JWT"). The audience is a string, not an array of one, which servers
// refuse.
type popClaims struct {
	Audience  string `json:"aud"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	Challenge string `json:"challenge,omitempty"`
	ReqHash   string `json:"req_hash,omitempty"`

	Issuer string `json:"iss,omitempty"` // see Profile.HasIssuer

	// Of ProfileOpenID4VCI alone.
	NotBefore int64  `json:"nbf,omitempty"`
	Expiry    int64  `json:"exp,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
}

func (t *Transport) signPoP(ctx context.Context, to *route, a attempt) (string, error) {
	return t.instance.sign(ctx, typePoP, func(now time.Time) ([]byte, error) { return t.newPoP(to.audience, a, now) })
}

// newPoP returns the claims of a PoP JWT, encoded.
func (t *Transport) newPoP(to *audience, a attempt, now time.Time) ([]byte, error) {
	claims := popClaims{
		Audience: to.identifier, ID: rand.Text(), IssuedAt: now.Unix(),
		Challenge: a.challenge.value(), ReqHash: a.reqHash,
	}
	if to.profile.HasIssuer() {
		claims.Issuer = t.clientID
	}
	if to.profile == ProfileOpenID4VCI {
		claims.Nonce = claims.Challenge
		claims.NotBefore, claims.Expiry = now.Unix(), now.Add(oldPoPLifetime).Unix()
	}
	return withExtra(claims, a.claims)
}

// withExtra encodes claims together with those that the caller's hook adds.
func withExtra(claims popClaims, extra map[string]any) ([]byte, error) {
	encoded, err := json.Marshal(claims)
	if err != nil || len(extra) == 0 {
		return encoded, err
	}
	var all map[string]any
	if err := json.Unmarshal(encoded, &all); err != nil {
		return nil, err
	}
	all["iat"] = claims.IssuedAt
	maps.Copy(all, extra)
	return json.Marshal(all)
}

// extraClaims returns the claims that the caller's hook adds.
func (t *Transport) extraClaims(req *http.Request, to *route) (map[string]any, error) {
	if t.claims == nil || !to.sendsPoP() {
		return nil, nil
	}
	claims, err := t.claims(req)
	if err != nil {
		return nil, err
	}
	for name := range claims {
		if slices.Contains(reserved, name) {
			return nil, fmt.Errorf("the claim %q is not Config.Claims's to set", name)
		}
	}
	return maps.Clone(claims), nil
}

// dpopClaims are the claims of a DPoP proof JWT (RFC 9449, section 4.2).
type dpopClaims struct {
	ID              string `json:"jti"`
	Method          string `json:"htm"`
	URL             string `json:"htu"`
	IssuedAt        int64  `json:"iat"`
	Nonce           string `json:"nonce,omitempty"`
	AccessTokenHash string `json:"ath,omitempty"`
}

// A target is what of a request a DPoP proof is for.
type target struct{ method, url, tokenHash string }

func (to *route) target(req *http.Request) target {
	// Without query, fragment and user information; with the path that the
	// request line has.
	location := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: cmp.Or(req.URL.Path, "/"), RawPath: req.URL.RawPath}
	is := target{method: cmp.Or(req.Method, http.MethodGet), url: location.String()} // as net/http sends them
	if to.token != "" {
		sum := sha256.Sum256([]byte(to.token))
		is.tokenHash = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return is
}

// signDPoP makes the DPoP proof for a request.
func (t *Transport) signDPoP(ctx context.Context, to *route, req *http.Request, nonce string) (string, error) {
	is := to.target(req)
	return to.dpop.sign(ctx, typeDPoP, func(now time.Time) ([]byte, error) { return newDPoP(is, nonce, now) })
}

// newDPoP returns the claims of a DPoP proof, encoded.
func newDPoP(of target, nonce string, now time.Time) ([]byte, error) {
	return json.Marshal(dpopClaims{
		ID: rand.Text(), Method: of.method, URL: of.url, IssuedAt: now.Unix(), Nonce: nonce, AccessTokenHash: of.tokenHash,
	})
}
