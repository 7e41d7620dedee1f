package authserver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
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

// A verifiedAttestation is what an attestation that passed section 7.1 says.
type verifiedAttestation struct {
	subject    string // client_id
	key        any    // public Client Instance Key
	thumbprint string // of key
	issuedAt   time.Time
	decode     func(dest any) error // decodes the claims, for the policy
	device     *deviceClaims        // nil before the policy was applied, and without one
}

// verifyAttestation applies section 7.1, item by item. fields are the values of
// the OAuth-Client-Attestation header fields, clientID is the request's
// client_id, if it has one.
func (v *verifier) verifyAttestation(fields []string, clientID string) (*verifiedAttestation, error) {
	bad := func(rule, format string, args ...any) error {
		return refuse(errInvalidClientAttestation, rule, format, args...)
	}

	// 1. Precisely one header field, containing a Client Attestation JWT.
	if len(fields) != 1 {
		return nil, refuse(errInvalidRequest, "7.1(1)", "%d %s header fields", len(fields), headerAttestation)
	}
	token, err := strictjwt.Parse(fields[0], typAttestation, v.cfg.AttestationAlgorithms)
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
	attester, err := v.attesterKey(token.Header)
	if err != nil {
		return nil, bad("7.1(4)", "%v", err)
	}
	var claims attestationClaims
	if err := token.Claims(attester, &claims); errors.Is(err, strictjwt.ErrSignature) {
		return nil, bad("7.1(4)", "%v", err)
	} else if err != nil {
		return nil, bad("7.1(2)", "%v", err)
	}

	// 2. All required claims.
	switch {
	case claims.Subject == "":
		return nil, bad("7.1(2)", "no sub")
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

	// 6. Fresh enough.
	if err := v.checkAttestationTimes(&claims); err != nil {
		return nil, err
	}

	// 7. A client_id in the request is the sub.
	if clientID != "" && clientID != claims.Subject {
		return nil, bad("7.1(7)", "client_id %.80q is not the attestation's sub %.80q", clientID, claims.Subject)
	}

	verified := &verifiedAttestation{subject: claims.Subject, key: key, thumbprint: thumbprint}
	if claims.IssuedAt != nil {
		verified.issuedAt = claims.IssuedAt.Time()
	}
	verified.decode = func(dest any) error { return token.Claims(attester, dest) }
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
	if claims.IssuedAt == nil {
		if v.cfg.MaxAttestationAge > 0 {
			return refuse(errInvalidClientAttestation, "7.1(6)", "attestation has no iat, and its age is limited")
		}
		return nil
	}
	if claims.IssuedAt.Time().After(now.Add(clockSkew)) {
		return refuse(errInvalidClientAttestation, "7.1(6)", "attestation was issued in the future")
	}
	if limit := v.cfg.MaxAttestationAge; limit > 0 && now.Sub(claims.IssuedAt.Time()) > limit {
		return refuse(errUseFreshAttestation, "7.1(6)", "attestation is older than %v", limit)
	}
	return nil
}

// attesterKey finds the key that must have signed an attestation with this
// header: by x5c, if the server has roots and the attestation a chain, or else
// by kid (section 10.8). A jku is never followed.
func (v *verifier) attesterKey(header jose.Header) (any, error) {
	if v.cfg.AttesterRoots != nil {
		chains, err := header.Certificates(x509.VerifyOptions{
			Roots:       v.cfg.AttesterRoots,
			CurrentTime: v.cfg.Now(),
			KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil {
			return chains[0][0].PublicKey, nil
		}
		if !errors.Is(err, jose.ErrMissingX5cHeader) {
			return nil, fmt.Errorf("x5c: %w", err)
		}
	}
	keys := v.cfg.AttesterKeys.Key(header.KeyID) // no trusted key has an empty kid
	if len(keys) == 0 {
		return nil, fmt.Errorf("no trusted attester key with kid %.80q", header.KeyID)
	}
	if want := keys[0].Algorithm; want != "" && want != header.Algorithm {
		return nil, fmt.Errorf("attester key %.80q is for %s, not %s", header.KeyID, want, header.Algorithm)
	}
	return keys[0].Key, nil
}

// checkTrust checks the attesters' keys and the algorithms of a configuration.
func (cfg *Config) checkTrust() error {
	if len(cfg.AttesterKeys.Keys) == 0 && cfg.AttesterRoots == nil {
		return errors.New("no attester is trusted: set AttesterKeys or AttesterRoots")
	}
	seen := make(map[string]bool)
	for _, key := range cfg.AttesterKeys.Keys {
		switch {
		case !key.IsPublic() || !key.Valid():
			return fmt.Errorf("attester key %q is not a public key", key.KeyID)
		case key.KeyID == "":
			return errors.New("attester key without a kid")
		case seen[key.KeyID]:
			return fmt.Errorf("two attester keys have the kid %q", key.KeyID)
		case key.Use != "" && key.Use != "sig":
			return fmt.Errorf("attester key %q is not for signatures", key.KeyID)
		}
		seen[key.KeyID] = true
	}
	algorithms := slices.Concat(cfg.AttestationAlgorithms, cfg.ProofAlgorithms)
	for _, alg := range algorithms {
		if alg == "" || alg == "none" || strings.HasPrefix(string(alg), "HS") {
			return fmt.Errorf("algorithm %q is not a digital signature", alg)
		}
	}
	if len(cfg.AttestationAlgorithms) == 0 || len(cfg.ProofAlgorithms) == 0 {
		return errors.New("no algorithm is accepted: leave the lists nil for the default")
	}
	return nil
}
