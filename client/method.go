// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
)

// DPoP says whether tokens are bound to a key (RFC 9449) by a DPoP proof that
// goes beside the PoP JWT. With transport.MethodDPoP, be it configured or found
// in the metadata, the one proof does both, and this setting has no effect.
type DPoP int

const (
	// DPoPOff: bearer tokens. The zero value.
	DPoPOff DPoP = iota
	// DPoPOwnKey: tokens are bound to an ECDSA P-256 key in memory, which each Client
	// makes for itself. The use of a token then costs no signature of slow hardware. An
	// access token is of no use after the Client. A refresh token is: it is bound to the
	// Client Instance Key.
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
// out is an error, and so are other mechanisms than the draft's two where none
// of these is offered, and a method that cannot bind bodies if that is wanted.
func (m *Metadata) method(configured transport.Method, bindBody bool) (transport.Method, error) {
	method, err := m.choose(configured)
	if err == nil {
		err = checkBinding(method, bindBody)
	}
	return method, err
}

func (m *Metadata) choose(configured transport.Method) (transport.Method, error) {
	authentication, signal := m.offered()
	switch {
	case len(authentication)+len(signal)+len(m.TokenEndpointAuthMethods) == 0 && !m.demandsOther():
		return cmp.Or(configured, transport.MethodPoP), nil
	case configured != "" && (slices.Contains(authentication, configured) || slices.Contains(signal, configured)):
		return configured, nil
	case configured == "" && len(authentication) > 0:
		return authentication[0], nil
	case configured == "" && len(signal) > 0:
		return signal[0], nil
	}
	wanted := cmp.Or(string(configured), "attestation-based client authentication")
	return "", fmt.Errorf("it does not offer %s: %s", wanted, m.methodLists())
}

// methodLists quotes the lists of methods that the metadata has. That of a
// resource has but one.
func (m *Metadata) methodLists() string {
	var lists []string
	if m.TokenEndpointAuthMethods != nil {
		lists = append(lists, fmt.Sprintf("token_endpoint_auth_methods_supported is %.300q", m.TokenEndpointAuthMethods))
	}
	if m.PoPMethods != nil {
		lists = append(lists, fmt.Sprintf("client_attestation_pop_methods_supported is %.300q", m.PoPMethods))
	}
	return strings.Join(lists, ", ")
}

// checkBinding refuses to bind bodies where there is no PoP JWT to do it.
func checkBinding(method transport.Method, bindBody bool) error {
	if bindBody && method == transport.MethodDPoP {
		return errors.New("requests would be in DPoP combined mode, which has no PoP JWT for Config.BindBody: unset one or the other")
	}
	return nil
}

// offered returns the methods that the metadata names, PoP JWT first: for
// client authentication, and for the additional signal beside another one.
func (m *Metadata) offered() (authentication, signal []transport.Method) {
	for _, method := range []transport.Method{transport.MethodPoP, transport.MethodDPoP} {
		if slices.Contains(m.TokenEndpointAuthMethods, string(method)) {
			authentication = append(authentication, method)
		}
		if slices.Contains(m.PoPMethods, popMethods[method]) {
			signal = append(signal, method)
		}
	}
	return authentication, signal
}

// demandsOther reports whether the metadata demands a proof of possession and
// lists mechanisms that this package does not have alone.
func (m *Metadata) demandsOther() bool {
	_, signal := m.offered()
	return len(m.PoPMethods) > 0 && len(signal) == 0 && !slices.Contains(m.PoPMethods, "none")
}

// clone returns a copy that shares nothing with m.
func (m *Metadata) clone() *Metadata {
	c := *m
	for _, list := range []*[]string{&c.TokenEndpointAuthMethods, &c.AttestationSigningAlgs, &c.AttestationPoPSigningAlgs, &c.PoPMethods, &c.DPoPSigningAlgs} {
		*list = slices.Clone(*list)
	}
	return &c
}

// checkAlgorithms compares the keys' algorithms with the lists in the metadata,
// where there are any. That of the DPoP key is "" if there is none.
func (m *Metadata) checkAlgorithms(method transport.Method, instance, dpop string) error {
	check := func(alg string, list []string, name string) error {
		if alg == "" || len(list) == 0 || slices.Contains(list, alg) {
			return nil
		}
		return fmt.Errorf("its %s does not have %s, the algorithm of this instance's key, only %.300q", name, alg, list)
	}
	if method == transport.MethodDPoP {
		return check(instance, m.DPoPSigningAlgs, "dpop_signing_alg_values_supported")
	}
	if err := check(instance, m.AttestationPoPSigningAlgs, "client_attestation_pop_signing_alg_values_supported"); err != nil {
		return err
	}
	return check(dpop, m.DPoPSigningAlgs, "dpop_signing_alg_values_supported")
}
