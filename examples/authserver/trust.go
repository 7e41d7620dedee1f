// SPDX-License-Identifier: Apache-2.0

package authserver

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A trust is which attesters are trusted, what their attestations must say, and
// which attestations are known to be theirs. It is replaced as a whole, so that
// nothing that was verified under one trust is taken under another.
type trust struct {
	keys       jose.JSONWebKeySet
	roots      *x509.CertPool
	policy     *Policy
	remembered *remembered
}

// SetAttesters replaces the trusted attesters that New was given: see
// Config.AttesterKeys and Config.AttesterRoots. Attestations of others are refused
// from the next request on. On an error nothing has changed.
func (s *Server) SetAttesters(keys jose.JSONWebKeySet, roots *x509.CertPool) error {
	return s.replaceTrust(func(old *trust) (*trust, error) { return newTrust(keys, roots, old.policy) })
}

// SetPolicy replaces the policy that New was given, from the next request on. Nil:
// every device of a trusted attester is served.
func (s *Server) SetPolicy(policy *Policy) {
	s.replaceTrust(func(old *trust) (*trust, error) { return newTrust(old.keys, old.roots, policy) }) // old was good
}

func (s *Server) replaceTrust(replace func(old *trust) (*trust, error)) error {
	for {
		old := s.trust.Load()
		next, err := replace(old)
		if err != nil {
			return fmt.Errorf("authserver: %w", err)
		}
		if s.trust.CompareAndSwap(old, next) {
			return nil
		}
	}
}

// attesterKey finds the key that must have signed an attestation with this
// header: by x5c, if the server has roots and the attestation a chain, or else
// by kid (section 10.8). A jku is never followed. It notes in verified how long the
// chain is valid.
func (t *trust) attesterKey(header jose.Header, now time.Time, verified *verifiedAttestation) (any, error) {
	if t.roots != nil {
		chains, err := header.Certificates(x509.VerifyOptions{
			Roots:       t.roots,
			CurrentTime: now,
			KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if err == nil {
			verified.notBefore, verified.notAfter = validity(chains[0])
			return chains[0][0].PublicKey, nil
		}
		if !errors.Is(err, jose.ErrMissingX5cHeader) {
			return nil, fmt.Errorf("x5c: %w", err)
		}
	}
	keys := t.keys.Key(header.KeyID) // no trusted key has an empty kid
	if len(keys) == 0 {
		return nil, fmt.Errorf("no trusted attester key with kid %.80q", header.KeyID)
	}
	if want := keys[0].Algorithm; want != "" && want != header.Algorithm {
		return nil, fmt.Errorf("attester key %.80q is for %s, not %s", header.KeyID, want, header.Algorithm)
	}
	return keys[0].Key, nil
}

// validity is when all certificates of a chain are valid.
func validity(chain []*x509.Certificate) (notBefore, notAfter time.Time) {
	notBefore, notAfter = chain[0].NotBefore, chain[0].NotAfter
	for _, certificate := range chain[1:] {
		if certificate.NotBefore.After(notBefore) {
			notBefore = certificate.NotBefore
		}
		if certificate.NotAfter.Before(notAfter) {
			notAfter = certificate.NotAfter
		}
	}
	return notBefore, notAfter
}

// newTrust checks the attesters' keys.
func newTrust(keys jose.JSONWebKeySet, roots *x509.CertPool, policy *Policy) (*trust, error) {
	if len(keys.Keys) == 0 && roots == nil {
		return nil, errors.New("no attester is trusted: set AttesterKeys or AttesterRoots")
	}
	seen := make(map[string]bool)
	for _, key := range keys.Keys {
		switch {
		case !key.IsPublic() || !key.Valid():
			return nil, fmt.Errorf("attester key %q is not a public key", key.KeyID)
		case key.KeyID == "":
			return nil, errors.New("attester key without a kid")
		case seen[key.KeyID]:
			return nil, fmt.Errorf("two attester keys have the kid %q", key.KeyID)
		case key.Use != "" && key.Use != "sig":
			return nil, fmt.Errorf("attester key %q is not for signatures", key.KeyID)
		}
		seen[key.KeyID] = true
	}
	keys.Keys = slices.Clone(keys.Keys)
	if roots != nil {
		roots = roots.Clone()
	}
	return &trust{keys: keys, roots: roots, policy: policy, remembered: newRemembered(rememberedAttestations)}, nil
}
