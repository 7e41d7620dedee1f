// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

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
var knownAlgs = []string{
	"ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87",
	"ESB256", "ESB320", "ESB384", "ESB512", // Brainpool curves
	"PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "HS256", "HS384", "HS512",
}

var (
	errExpired = errors.New("it expired")
	errEarly   = errors.New("it is issued in the future")
	errUnfit   = errors.New("the server does not accept its algorithm")
)

// checkAttestation reads a Client Attestation JWT as far as a client needs to: it
// is made for the server, so its signature, and whatever else is in it, a
// certificate that Go cannot read for example, is the server's business. What is
// checked here catches the usual mistakes of set-up where they can still be
// explained (draft, "Client Attestation JWT"): typ, sub, cnf, exp, and an algorithm
// that the server accepts. Errors match ErrInvalidAttestation and do not quote the
// JWT.
func checkAttestation(raw string, req AttestRequest, now time.Time) (*attestation, error) {
	checked, err := readAttestation(raw, req, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidAttestation, err)
	}
	return checked, nil
}

func readAttestation(raw string, req AttestRequest, now time.Time) (*attestation, error) {
	if len(raw) > maxAttestation {
		return nil, fmt.Errorf("%d bytes, more than %d", len(raw), maxAttestation)
	}
	header, claims, err := decodeJWT(raw)
	if err != nil {
		return nil, err
	}
	alg, err := header.text("alg")
	if err == nil {
		err = checkAlgorithm(alg, req.SigningAlgs)
	}
	if err != nil {
		return nil, err
	}
	typ, err := header.text("typ")
	if err != nil {
		return nil, err
	}
	if typ != req.typ() {
		return nil, fmt.Errorf("its typ is %.60q, not %q", typ, req.typ())
	}
	sub, err := claims.text("sub")
	if err == nil {
		err = req.checkSubject(sub)
	}
	if err != nil {
		return nil, err
	}
	cnf, err := claims.object("cnf")
	if err != nil {
		return nil, err
	}
	jwk, err := cnf.object("jwk")
	if err == nil {
		err = checkConfirmation(jwk, req.Key)
	}
	if err != nil {
		return nil, err
	}
	if req.Profile == transport.ProfileKeycloak {
		if err := checkForKeycloak(header, claims, jwk, req.Key.Algorithm()); err != nil {
			return nil, err
		}
	}
	issued, _, err := claims.time("iat")
	if err != nil {
		return nil, err
	}
	expiry, there, err := claims.time("exp")
	switch {
	case err != nil:
		return nil, err
	case !there:
		return nil, errors.New("it has no exp")
	case !now.Before(expiry):
		return nil, fmt.Errorf("%w at %s, the clock says %s", errExpired, expiry.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return &attestation{raw: raw, alg: alg, since: now, issued: issued, expiry: expiry}, nil
}

// checkAlgorithm checks an attestation's alg. listed is what the server's metadata
// lists.
func checkAlgorithm(alg string, listed []string) error {
	switch isListed := slices.Contains(listed, alg); {
	case alg == "":
		return errors.New("its header has no alg")
	case strings.EqualFold(alg, "none"):
		return errors.New("it is not signed: its alg is none")
	case isListed || len(listed) == 0 && slices.Contains(knownAlgs, alg):
		return nil
	case len(listed) == 0 || !slices.Contains(knownAlgs, alg):
		return fmt.Errorf("its alg %.40q is not that of a signature", alg)
	default:
		return fmt.Errorf("%w, %s, only %.200s", errUnfit, alg, strings.Join(listed, " "))
	}
}

// checkForKeycloak checks what Keycloak demands of an attestation beyond the draft,
// for the attester to be mended and not the server to be asked: its refusal comes
// without the name of what is missing, or not at all like one.
func checkForKeycloak(header, claims, jwk object, keyAlg string) error {
	// One of another type is as good as none.
	kid, _ := header.text("kid")
	issuer, _ := claims.text("iss")
	alg, _ := jwk.text("alg")
	switch {
	case kid == "":
		return errors.New("it has no kid, by which alone Keycloak finds the attester's key: give that key one")
	case issuer == "":
		return errors.New("it has no iss, which Keycloak demands: let the attester set one")
	case alg != keyAlg:
		return fmt.Errorf("its cnf.jwk has the alg %.20q, and Keycloak demands %s: let the attester set it", alg, keyAlg)
	}
	return nil
}

// privateMembers of a JWK: RFC 7518, section 6, and RFC 9964.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// checkConfirmation compares the key of an attestation with this instance's, by
// thumbprint. The members of a JWK that do not make the key (use, kid, alg, x5c
// and so on) are the attester's to choose, and are not read.
func checkConfirmation(jwk object, key keystore.Key) (err error) {
	if jwk.members == nil {
		return errors.New("it has no cnf.jwk")
	}
	for _, name := range privateMembers {
		if _, ok := jwk.members[name]; ok {
			return fmt.Errorf("its cnf.jwk is not a public key: it has the member %s", name)
		}
	}
	public := make(map[string]string)
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e", "pub"} {
		if public[name], err = jwk.text(name); err != nil {
			return err
		}
	}
	var parsed jose.JSONWebKey
	encoded, err := json.Marshal(public)
	if err == nil {
		err = json.Unmarshal(encoded, &parsed)
	}
	if err != nil {
		return fmt.Errorf("its cnf.jwk is not a public key: %.100q", err)
	}
	theirs, err := keystore.Thumbprint(parsed.Key)
	if err != nil {
		return errors.New("its cnf.jwk is not a public key")
	}
	ours, err := keystore.Thumbprint(key.Public())
	if err != nil {
		return err
	}
	if theirs != ours {
		return fmt.Errorf("it is for key %s, this instance has %s", theirs, ours)
	}
	return nil
}
