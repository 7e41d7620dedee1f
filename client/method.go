package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// DPoP says whether tokens are bound to a key (RFC 9449) by a DPoP proof that
// goes beside the PoP JWT. With transport.MethodDPoP the one proof does both,
// and this setting has no effect.
type DPoP int

const (
	// DPoPOff: bearer tokens. The zero value.
	DPoPOff DPoP = iota
	// DPoPOwnKey: tokens are bound to an ECDSA P-256 key in memory that each
	// Client makes for itself: the use of a token costs no signature of slow
	// hardware. A token ends with the Client; a refresh token does not, it is
	// bound to the Client Instance Key.
	DPoPOwnKey
	// DPoPInstanceKey: tokens are bound to the Client Instance Key.
	DPoPInstanceKey
)

func (d DPoP) key(instance keystore.Key) (keystore.Key, error) {
	switch d {
	case DPoPInstanceKey:
		return instance, nil
	case DPoPOwnKey:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("client: DPoP key: %w", err)
		}
		return keystore.FromSigner(private)
	default:
		return nil, nil
	}
}

// The values of client_attestation_pop_methods_supported (draft, "Client
// Attestation as an Additional Security Signal") and the authentication methods
// they go with.
var popMethods = map[transport.Method]string{
	transport.MethodPoP:  "attestation_pop_jwt",
	transport.MethodDPoP: "dpop_combined",
}

// method settles how the client authenticates, before anything is sent:
// configured if that is set, else what the metadata offers, PoP JWT first. What
// the metadata is silent about is not held against the server; what it rules
// out is an error.
func (m *Metadata) method(configured transport.Method) (transport.Method, error) {
	if configured != "" {
		if !m.offers(configured) {
			return "", fmt.Errorf("%w: it does not offer %s, only %.300q", ErrMetadata, configured, m.TokenEndpointAuthMethods)
		}
		return configured, nil
	}
	for _, method := range []transport.Method{transport.MethodPoP, transport.MethodDPoP} {
		if m.offers(method) {
			return method, nil
		}
	}
	return "", fmt.Errorf("%w: it offers no attestation-based client authentication, only %.300q", ErrMetadata, m.TokenEndpointAuthMethods)
}

// offers reports whether the metadata offers the method, as client
// authentication or as an additional signal beside another one, or says nothing
// of either.
func (m *Metadata) offers(method transport.Method) bool {
	return slices.Contains(m.TokenEndpointAuthMethods, string(method)) ||
		slices.Contains(m.PoPMethods, popMethods[method]) ||
		len(m.TokenEndpointAuthMethods) == 0 && len(m.PoPMethods) == 0
}

// checkAlgorithms compares the keys' algorithms with the lists in the metadata,
// where there are any.
func (m *Metadata) checkAlgorithms(method transport.Method, instance, dpop keystore.Key) error {
	check := func(key keystore.Key, list []string, name string) error {
		if key == nil || len(list) == 0 || slices.Contains(list, key.Algorithm()) {
			return nil
		}
		return fmt.Errorf("%w: its %s does not have %s, the algorithm of this instance's key, only %.300q", ErrMetadata, name, key.Algorithm(), list)
	}
	if method == transport.MethodDPoP {
		return check(instance, m.DPoPSigningAlgs, "dpop_signing_alg_values_supported")
	}
	if err := check(instance, m.AttestationPoPSigningAlgs, "client_attestation_pop_signing_alg_values_supported"); err != nil {
		return err
	}
	return check(dpop, m.DPoPSigningAlgs, "dpop_signing_alg_values_supported")
}
