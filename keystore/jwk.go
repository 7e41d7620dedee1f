// SPDX-License-Identifier: Apache-2.0

package keystore

import (
	"crypto"
	_ "crypto/sha256" // RFC 7638 thumbprints here are SHA-256
	"encoding/base64"
	"fmt"
	"reflect"

	"github.com/go-jose/go-jose/v4"
)

// JWK returns the public key as a JSON Web Key with its required members only
// (RFC 7517; RFC 7518, section 6.2: coordinates have the full length of the
// curve also when they begin with zero bytes). It fails for a private key and
// for a type that has no JWK form.
func JWK(pub crypto.PublicKey) (jose.JSONWebKey, error) {
	jwk := jose.JSONWebKey{Key: pub}
	if v := reflect.ValueOf(pub); v.Kind() == reflect.Pointer && v.IsNil() || !jwk.IsPublic() || !jwk.Valid() {
		return jose.JSONWebKey{}, fmt.Errorf("keystore: %T is not a public key that has a JWK form", pub)
	}
	// Valid accepts curves that have no name in JOSE; marshalling does not.
	if _, err := jwk.MarshalJSON(); err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("keystore: public key has no JWK form: %w", err)
	}
	return jwk, nil
}

// Thumbprint returns the JWK thumbprint of a public key (RFC 7638) with
// SHA-256, in base64url without padding: the value that "jkt" members, DPoP key
// binding and this module's logs use to name a key.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	jwk, err := JWK(pub)
	if err != nil {
		return "", err
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("keystore: thumbprint: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}
