package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

const (
	typeAttestation = "oauth-client-attestation+jwt"

	// maxAttestation bounds what is parsed, in bytes. Servers take about 8 to
	// 16 kB of header fields in all.
	maxAttestation = 32 << 10
)

// knownAlgs are the algorithms a Client Attestation may be signed (or, says the
// draft, MACed) with without the server's metadata naming them. The client
// verifies none of them; "none" is not among them.
var knownAlgs = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, "Ed25519", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87",
	jose.PS256, jose.PS384, jose.PS512, jose.RS256, jose.RS384, jose.RS512,
	jose.HS256, jose.HS384, jose.HS512,
}

var (
	errExpired = errors.New("it expired")
	errEarly   = errors.New("it is issued in the future")
	errUnfit   = errors.New("the server does not accept its algorithm")
)

// attestation is a Client Attestation JWT that has passed the local checks.
type attestation struct {
	raw       string
	alg       string    // that it is signed with
	number    int       // in the order of receipt; a clock may be set back
	since     time.Time // when it was asked for
	issued    time.Time // zero: it does not say
	expiry    time.Time
	renewFrom time.Time // when to begin to look for the next one
}

// early reports whether it says that it was issued later than now. Then the clock
// that it was issued by is wrong, or ours is.
func (a *attestation) early(now time.Time) bool {
	return a != nil && a.issued.After(now.Add(minOffset))
}

// valid reports whether it can be used now. If it was asked for later than now,
// the clock was set back since, and an attester in this instance may have issued
// it by that clock.
func (a *attestation) valid(now time.Time) bool {
	setBack := now.Before(a.since.Add(-minOffset))
	return now.Before(a.expiry) && !(setBack && (a.issued.IsZero() || a.early(now)))
}

// checkAttestation reads a Client Attestation JWT as far as a client can: it
// may be MACed, so its signature is the server's business. What is checked here
// catches the usual mistakes of set-up where they can still be explained (draft,
// "Client Attestation JWT"): typ, sub, cnf, exp, and an algorithm that the server
// accepts. Errors match ErrInvalidAttestation and do not quote the JWT.
func checkAttestation(raw string, req AttestRequest, now time.Time) (*attestation, error) {
	if len(raw) > maxAttestation {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidAttestation, len(raw), maxAttestation)
	}
	allowed := knownAlgs
	if len(req.SigningAlgs) > 0 {
		allowed = nil
		for _, alg := range req.SigningAlgs {
			if alg == "none" {
				continue
			}
			allowed = append(allowed, jose.SignatureAlgorithm(alg))
		}
	}
	token, err := jwt.ParseSigned(raw, append(slices.Clone(allowed), knownAlgs...))
	if err != nil || strings.ContainsAny(raw, "\r\n") || strings.HasSuffix(raw, ".") { // Go's base64 reads over line ends, a header field must not have them
		return nil, fmt.Errorf("%w: not a signed JWT in compact form", ErrInvalidAttestation)
	}
	header := token.Headers[0]
	if !slices.Contains(allowed, jose.SignatureAlgorithm(header.Algorithm)) {
		return nil, fmt.Errorf("%w: %w, %s, only %v", ErrInvalidAttestation, errUnfit, header.Algorithm, req.SigningAlgs)
	}
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != req.typ() {
		return nil, fmt.Errorf("%w: its typ is %.60q, not %q", ErrInvalidAttestation, typ, req.typ())
	}

	var claims struct {
		Issuer       any              `json:"iss"` // of any type, but for Keycloak
		Subject      string           `json:"sub"`
		IssuedAt     *jwt.NumericDate `json:"iat"`
		Expiry       *jwt.NumericDate `json:"exp"`
		Confirmation struct {
			JWK *jose.JSONWebKey `json:"jwk"`
		} `json:"cnf"`
	}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return nil, fmt.Errorf("%w: its claims cannot be read", ErrInvalidAttestation)
	}
	if err := req.checkSubject(claims.Subject); err != nil {
		return nil, err
	}
	if err := checkConfirmation(claims.Confirmation.JWK, req.Key); err != nil {
		return nil, err
	}
	if req.Profile == transport.ProfileKeycloak {
		if err := checkForKeycloak(header.KeyID, claims.Issuer, claims.Confirmation.JWK.Algorithm, req.Key.Algorithm()); err != nil {
			return nil, err
		}
	}
	if claims.Expiry == nil {
		return nil, fmt.Errorf("%w: it has no exp", ErrInvalidAttestation)
	}
	expiry := claims.Expiry.Time()
	if !now.Before(expiry) {
		return nil, fmt.Errorf("%w: %w at %s, the clock says %s", ErrInvalidAttestation, errExpired,
			expiry.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	checked := &attestation{raw: raw, alg: header.Algorithm, since: now, expiry: expiry, renewFrom: renewFrom(now, expiry)}
	if claims.IssuedAt != nil {
		checked.issued = claims.IssuedAt.Time()
	}
	return checked, nil
}

// checkForKeycloak checks what Keycloak demands of an attestation beyond the draft,
// for the attester to be mended and not the server to be asked: its refusal comes
// without the name of what is missing, or not at all like one.
func checkForKeycloak(kid string, issuer any, alg, keyAlg string) error {
	iss, _ := issuer.(string)
	switch {
	case kid == "":
		return fmt.Errorf("%w: Keycloak finds the attester's key by kid alone, and it has none: the attester's key needs a kid", ErrInvalidAttestation)
	case iss == "":
		return fmt.Errorf("%w: Keycloak demands iss, and it has none: let the attester set one", ErrInvalidAttestation)
	case alg != keyAlg:
		return fmt.Errorf("%w: Keycloak demands that cnf.jwk has the alg %s, and it has %.20q: let the attester set it", ErrInvalidAttestation, keyAlg, alg)
	}
	return nil
}

// checkConfirmation compares keys by thumbprint: the members of a JWK that do
// not make the key (use, kid, alg) are the attester's to choose.
func checkConfirmation(jwk *jose.JSONWebKey, key keystore.Key) error {
	if jwk == nil {
		return fmt.Errorf("%w: it has no cnf.jwk", ErrInvalidAttestation)
	}
	theirs, err := keystore.Thumbprint(jwk.Key)
	if err != nil {
		return fmt.Errorf("%w: its cnf.jwk is not a public key", ErrInvalidAttestation)
	}
	ours, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return err
	}
	if theirs != ours {
		return fmt.Errorf("%w: it is for key %s, this instance has %s", ErrInvalidAttestation, theirs, ours)
	}
	return nil
}
