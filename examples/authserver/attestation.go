// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/examples/internal/strictjwt"
)

const typAttestation = "oauth-client-attestation+jwt"

// attestationClaims: section 4. All other claims are the policy's, or ignored.
type attestationClaims struct {
	Subject      string           `json:"sub"`
	Expiry       *jwt.NumericDate `json:"exp"`
	IssuedAt     *jwt.NumericDate `json:"iat"`
	NotBefore    *jwt.NumericDate `json:"nbf"`
	Confirmation struct {
		JWK json.RawMessage `json:"jwk"`
	} `json:"cnf"`
}

// A verifiedAttestation is what an attestation that passed section 7.1 says. It is
// not changed after it was made: requests share it while it is remembered.
type verifiedAttestation struct {
	subject    string // client_id
	key        any    // public Client Instance Key
	thumbprint string // of key
	claims     attestationClaims
	issuedAt   time.Time
	device     func() (*deviceClaims, error) // decodes the claims about the device, once
	trust      *trust                        // under which it was verified
	// notBefore and notAfter are the validity of the attester's certificates, zero
	// where its key is known by a kid.
	notBefore, notAfter time.Time
}

// verifyAttestation applies section 7.1, item by item. fields are the values of
// the OAuth-Client-Attestation header fields, clientID is the request's
// client_id, if it has one. Of an attestation that is remembered, the items that
// depend on the time and on the request are looked at again, and no others.
func (v *verifier) verifyAttestation(fields []string, clientID string) (*verifiedAttestation, error) {
	// 1. Precisely one header field, containing a Client Attestation JWT.
	if len(fields) != 1 {
		return nil, refuse(errInvalidRequest, "7.1(1)", "%d %s header fields", len(fields), headerAttestation)
	}
	trust := v.trust.Load()
	verified := trust.remembered.get(fields[0], v.cfg.Now())
	isNew := verified == nil
	if isNew {
		var err error
		if verified, err = v.verifyNew(trust, fields[0]); err != nil {
			return nil, err
		}
	}

	// 6. Fresh enough.
	if err := v.checkAttestationTimes(&verified.claims); err != nil {
		return nil, err
	}

	// 7. A client_id in the request is the sub.
	if clientID != "" && clientID != verified.subject {
		return nil, refuse(errInvalidClientAttestation, "7.1(7)", "client_id %.80q is not the attestation's sub %.80q", clientID, verified.subject)
	}
	if isNew {
		trust.remembered.put(fields[0], verified)
	}
	return verified, nil
}

// verifyNew applies items 1 to 5 of section 7.1, which are true of an attestation
// for as long as the same attesters are trusted.
func (v *verifier) verifyNew(trust *trust, compact string) (*verifiedAttestation, error) {
	bad := func(rule, format string, args ...any) error {
		return refuse(errInvalidClientAttestation, rule, format, args...)
	}
	token, err := strictjwt.Parse(compact, typAttestation, v.cfg.AttestationAlgorithms)
	switch {
	case errors.Is(err, strictjwt.ErrAlgorithm): // 3. alg is acceptable.
		return nil, bad("7.1(3)", "%v", err)
	case errors.Is(err, strictjwt.ErrType): // 2. All required header parameters.
		return nil, bad("7.1(2)", "%v", err)
	case err != nil:
		return nil, bad("7.1(1)", "%v", err)
	}

	// 4. The signature verifies with the key of a known and trusted attester.
	// This comes before every look at the claims.
	verified := &verifiedAttestation{trust: trust}
	attester, err := trust.attesterKey(token.Header, v.cfg.Now(), verified)
	if err != nil {
		return nil, bad("7.1(4)", "%v", err)
	}
	payload, err := token.Payload(attester)
	if err != nil {
		return nil, bad("7.1(4)", "%v", err)
	}
	claims := &verified.claims
	if err := strictjwt.Decode(payload, claims); err != nil {
		return nil, bad("7.1(2)", "%v", err)
	}

	// 2. All required claims.
	switch {
	case claims.Subject == "":
		return nil, bad("7.1(2)", "no sub")
	case claims.IssuedAt == nil: // required since -12
		return nil, bad("7.1(2)", "no iat")
	case claims.Expiry == nil:
		return nil, bad("7.1(2)", "no exp")
	case len(claims.Confirmation.JWK) == 0:
		return nil, bad("7.1(2)", "no cnf.jwk")
	}

	// 5. The key in cnf is not a private key.
	key, thumbprint, err := strictjwt.PublicKey(claims.Confirmation.JWK)
	if errors.Is(err, strictjwt.ErrPrivateKey) {
		return nil, bad("7.1(5)", "cnf.jwk: %v", err)
	} else if err != nil {
		return nil, bad("7.1(2)", "cnf.jwk: %v", err)
	}

	verified.subject, verified.key, verified.thumbprint = claims.Subject, key, thumbprint
	verified.issuedAt = claims.IssuedAt.Time()
	verified.device = sync.OnceValues(func() (*deviceClaims, error) { return readDevice(payload) })
	return verified, nil
}

// checkAttestationTimes: section 7.1, item 6, and RFC 7519 for nbf. Whatever a
// newer attestation cures is answered with use_fresh_attestation (section 7.4).
func (v *verifier) checkAttestationTimes(claims *attestationClaims) error {
	now := v.cfg.Now()
	if !now.Before(claims.Expiry.Time().Add(clockSkew)) {
		return refuse(errUseFreshAttestation, "7.1(6)", "attestation has expired")
	}
	if claims.NotBefore != nil && claims.NotBefore.Time().After(now.Add(clockSkew)) {
		return refuse(errInvalidClientAttestation, "7.1(6)", "attestation is not valid yet")
	}
	if claims.IssuedAt.Time().After(now.Add(clockSkew)) {
		return refuse(errInvalidClientAttestation, "7.1(6)", "attestation was issued in the future")
	}
	if limit := v.cfg.MaxAttestationAge; limit > 0 && now.Sub(claims.IssuedAt.Time()) > limit {
		return refuse(errUseFreshAttestation, "7.1(6)", "attestation is older than %v", limit)
	}
	return nil
}
