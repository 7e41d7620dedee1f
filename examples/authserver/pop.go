// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/internal/freshness"
	"github.com/instancekey/instancekey/examples/internal/strictjwt"
)

const typPoP = "oauth-client-attestation-pop+jwt"

// popClaims: section 5.1. All other claims are ignored.
type popClaims struct {
	proofTimes
	Audience  jwt.Audience `json:"aud"`
	ID        string       `json:"jti"`
	Challenge *string      `json:"challenge"`
	ReqHash   string       `json:"req_hash"` // not of the draft: see reqhash.go
}

// proofTimes are the times in a PoP JWT or DPoP proof. Both have iat alone, but
// RFC 7519 demands that exp and nbf are obeyed wherever they are.
type proofTimes struct {
	IssuedAt  *jwt.NumericDate `json:"iat"`
	Expiry    *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf"`
}

// verifyPoP applies section 7.2, item by item. fields are the values of the
// OAuth-Client-Attestation-PoP header fields. It returns which message the
// PoP JWT vouches for, nil for none.
func (v *verifier) verifyPoP(ctx context.Context, fields []string, attestation *verifiedAttestation) (*messageHash, error) {
	bad := func(rule, format string, args ...any) (*messageHash, error) {
		return nil, refuse(errInvalidClientAttestation, rule, format, args...)
	}

	// 1. Precisely one header field, containing a PoP JWT.
	if len(fields) != 1 {
		return nil, refuse(errInvalidRequest, "7.2(1)", "%d %s header fields", len(fields), headerPoP)
	}
	token, err := strictjwt.Parse(fields[0], typPoP, v.cfg.ProofAlgorithms)
	switch {
	case errors.Is(err, strictjwt.ErrAlgorithm): // 3. alg is acceptable.
		return bad("7.2(3)", "%v", err)
	case errors.Is(err, strictjwt.ErrType): // 2. All required header parameters.
		return bad("7.2(2)", "%v", err)
	case err != nil:
		return bad("7.2(1)", "%v", err)
	}

	// 4. The signature verifies with the key in the attestation's cnf. A key
	// in the PoP JWT's own header means nothing.
	var claims popClaims
	if err := token.Claims(attestation.key, &claims); errors.Is(err, strictjwt.ErrSignature) {
		return bad("7.2(4)", "%v", err)
	} else if err != nil {
		return bad("7.2(2)", "%v", err)
	}

	// 2. All required claims.
	switch {
	case len(claims.Audience) == 0:
		return bad("7.2(2)", "no aud")
	case claims.ID == "":
		return bad("7.2(2)", "no jti")
	case claims.IssuedAt == nil:
		return bad("7.2(2)", "no iat")
	}

	// 5. The challenge is one of ours, if we provide any.
	if err := v.checkChallenge(claims.Challenge); err != nil {
		return nil, err
	}

	// 6. Created in an acceptable window.
	if err := v.checkProofTime(claims.proofTimes, v.challenges != nil); err != nil {
		return bad("7.2(6)", "%v", err)
	}

	// 7. The audience is this server's issuer identifier, or this resource's
	// identifier, and nothing else: neither the token endpoint nor a second
	// audience.
	if len(claims.Audience) != 1 || claims.Audience[0] != v.audience {
		return bad("7.2(7)", "aud %.120q is not the issuer or resource identifier %s", claims.Audience, v.audience)
	}

	if err := v.awaitProofTime(ctx, claims.proofTimes, v.challenges != nil); err != nil {
		return nil, refuseReplayMemory("7.2(8)", err)
	}

	// 8. Not a replay. What is remembered is remembered last, so that a PoP JWT
	// that fails another check uses nothing up (section 10.7).
	if err := v.spendChallenge(claims.Challenge); err != nil {
		return nil, err
	}
	switch err := v.seenPoPs.Add(attestation.thumbprint + claims.ID); {
	case errors.Is(err, freshness.ErrSeen):
		return bad("7.2(8)", "jti: %v", err)
	case err != nil:
		return nil, refuseReplayMemory("7.2(8)", err)
	}
	return newMessageHash(claims.ReqHash, token.Header.Algorithm)
}

// checkProofTime checks the times of a PoP JWT or DPoP proof that has an iat.
// Both replay memories rely on it. A proof without a value of this process in it,
// a challenge or a nonce, must have been made since the server started: what was
// used before that it does not remember.
func (v *verifier) checkProofTime(times proofTimes, challenged bool) error {
	now := v.cfg.Now()
	age := now.Sub(times.IssuedAt.Time())
	switch {
	case age < -clockSkew:
		return fmt.Errorf("iat is %v in the future", (-age).Round(time.Second))
	case age >= v.cfg.ProofWindow:
		return fmt.Errorf("iat is %v in the past", age.Round(time.Second))
	case !challenged && times.IssuedAt.Time().Before(v.started):
		return errors.New("it was made before this server started, and may have been used then")
	case times.Expiry != nil && !now.Before(times.Expiry.Time().Add(clockSkew)):
		return errors.New("its exp has passed")
	case times.NotBefore != nil && times.NotBefore.Time().After(now.Add(clockSkew)):
		return errors.New("its nbf is in the future")
	}
	return nil
}

// awaitProofTime waits, where a proof has no value of this process in it, for the time
// that its sender's clock, which may be clockSkew ahead, has given it. So whatever was
// used is from before now, and from before the start of the process that comes next,
// which does not remember it.
func (v *verifier) awaitProofTime(ctx context.Context, times proofTimes, challenged bool) error {
	ahead := times.IssuedAt.Time().Sub(v.cfg.Now())
	if challenged || ahead <= 0 {
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
