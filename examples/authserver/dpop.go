// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/strictjwt"
	"github.com/instancekey/instancekey/keystore"
)

const typDPoP = "dpop+jwt"

// dpopClaims: RFC 9449, section 4.2.
type dpopClaims struct {
	proofTimes
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URI    string `json:"htu"`
	Nonce  string `json:"nonce"`

	AccessTokenHash string `json:"ath"`
}

// A target is what a DPoP proof must have been made for: the htm, the htu, and
// the access token of the ath; at the authorization server there is none.
type target struct{ method, uri, accessToken string }

// verifyCombined applies section 7.3. Item 1, no PoP header field, is how the
// caller came here. Challenges play no part: freshness is the DPoP nonce's.
func (v *verifier) verifyCombined(ctx context.Context, proofs []string, made target, attestation *verifiedAttestation) error {
	// 2. and 3. Precisely one proof, valid per RFC 9449.
	thumbprint, err := v.verifyDPoP(ctx, proofs, made)
	if err != nil {
		return err
	}
	// 4. Its key is the Client Instance Key. Thumbprints are compared: the
	// JWKs may differ in members such as "use".
	if subtle.ConstantTimeCompare([]byte(thumbprint), []byte(attestation.thumbprint)) != 1 {
		return refuse(errInvalidClientAttestation, "7.3(4)", "DPoP key is not the Client Instance Key")
	}
	return nil
}

// verifyDPoP applies the checks of RFC 9449, section 4.3, and returns the
// thumbprint of the proof's key.
func (v *verifier) verifyDPoP(ctx context.Context, fields []string, made target) (thumbprint string, err error) {
	bad := func(item, format string, args ...any) error {
		return refuse(errInvalidDPoPProof, "RFC 9449 4.3("+item+")", format, args...)
	}

	if len(fields) != 1 {
		return "", bad("1", "%d DPoP header fields", len(fields))
	}
	token, err := strictjwt.Parse(fields[0], typDPoP, v.cfg.ProofAlgorithms)
	switch {
	case errors.Is(err, strictjwt.ErrAlgorithm):
		return "", bad("5", "%v", err)
	case errors.Is(err, strictjwt.ErrType):
		return "", bad("4", "%v", err)
	case err != nil: // also a private key in jwk (item 7), which go-jose refuses to parse
		return "", bad("2", "%v", err)
	}
	if token.Header.JSONWebKey == nil {
		return "", bad("3", "no jwk")
	}
	thumbprint, err = keystore.Thumbprint(token.Header.JSONWebKey.Key)
	if err != nil {
		return "", bad("3", "%v", err)
	}
	var claims dpopClaims
	if err := token.Claims(token.Header.JSONWebKey.Key, &claims); errors.Is(err, strictjwt.ErrSignature) {
		return "", bad("6", "%v", err)
	} else if err != nil {
		return "", bad("2", "%v", err)
	}

	switch {
	case claims.ID == "" || claims.Method == "" || claims.URI == "" || claims.IssuedAt == nil:
		return "", bad("3", "jti, htm, htu or iat is missing")
	case claims.Method != made.method:
		return "", bad("8", "htm %.20q", claims.Method)
	case !sameURI(claims.URI, made.uri):
		return "", bad("9", "htu %.200q", claims.URI)
	}
	if v.nonces != nil {
		if err := v.nonces.Check(claims.Nonce); err != nil {
			return "", refuse(errUseDPoPNonce, "RFC 9449 4.3(10)", "nonce: %v", err)
		}
	}
	if err := v.checkProofTime(claims.proofTimes, v.nonces != nil); err != nil {
		return "", bad("11", "%v", err)
	}
	if made.accessToken != "" && claims.AccessTokenHash != base64Hash(made.accessToken) {
		return "", bad("12", "ath is not the hash of the access token")
	}
	if err := v.awaitProofTime(ctx, claims.proofTimes, v.nonces != nil); err != nil {
		return "", refuseReplayMemory("RFC 9449 11.1", err)
	}
	switch err := v.seenDPoPProofs.Add(thumbprint + claims.ID); {
	case errors.Is(err, freshness.ErrSeen):
		return "", refuse(errInvalidDPoPProof, "RFC 9449 11.1", "jti: %v", err)
	case err != nil:
		return "", refuseReplayMemory("RFC 9449 11.1", err)
	}
	return thumbprint, nil
}

// base64Hash is how a DPoP proof names an access token (RFC 9449, section 4.2),
// and a code_challenge its code_verifier (RFC 7636, section 4.2).
func base64Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sameURI compares an htu with an endpoint as RFC 9449, section 4.3, asks:
// without query and fragment, and after the normalization of scheme and host.
func sameURI(htu, endpoint string) bool {
	a, errA := url.Parse(htu)
	b, errB := url.Parse(endpoint)
	return errA == nil && errB == nil && origin(a) == origin(b) && path(a) == path(b)
}

func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func path(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}
