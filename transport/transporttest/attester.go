// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/instancekey/instancekey/keystore"
)

const typeAttestation = "oauth-client-attestation+jwt"

// An Attester makes Client Attestations that its Server trusts.
type Attester struct {
	// Lifetime is how long attestations are good; New sets an hour.
	Lifetime time.Duration

	tb           testing.TB
	typ, subject string
	now          func() time.Time
	key          *ecdsa.PrivateKey

	mu     sync.Mutex
	serial int
}

func newAttester(tb testing.TB, typ, subject string, now func() time.Time) *Attester {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &Attester{Lifetime: time.Hour, tb: tb, typ: typ, subject: subject, now: now, key: key}
}

// Attest returns a new attestation for a key, unlike all before it. Each edit
// may change its claims first.
func (a *Attester) Attest(pub crypto.PublicKey, edits ...func(claims map[string]any)) string {
	a.mu.Lock()
	a.serial++
	serial := a.serial
	a.mu.Unlock()

	now := a.now()
	claims := map[string]any{
		"sub":    a.subject,
		"iat":    now.Unix(),
		"exp":    now.Add(a.Lifetime).Unix(),
		"cnf":    map[string]any{"jwk": jose.JSONWebKey{Key: pub}},
		"serial": serial,
	}
	for _, edit := range edits {
		edit(claims)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: a.key},
		new(jose.SignerOptions).WithType(jose.ContentType(a.typ)))
	if err != nil {
		a.tb.Errorf("transporttest: attester: %v", err)
		return ""
	}
	attestation, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		a.tb.Errorf("transporttest: attester: %v", err)
	}
	return attestation
}

// A Source is a transport.AttestationSource over an Attester. It gives one
// attestation until that is rejected or has expired.
type Source struct {
	attester *Attester
	key      keystore.Key

	mu       sync.Mutex
	current  string
	until    time.Time
	rejected []string
	doubted  []string
}

// Source returns a Source of attestations for key.
func (a *Attester) Source(key keystore.Key) *Source { return &Source{attester: a, key: key} }

// Attestation implements transport.AttestationSource.
func (s *Source) Attestation(ctx context.Context, rejected string, _ []string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rejected != "" {
		s.rejected = append(s.rejected, rejected)
	}
	now := s.attester.now()
	if s.current == "" || s.current == rejected || !now.Before(s.until) {
		s.current, s.until = s.attester.Attest(s.key.Public()), now.Add(s.attester.Lifetime)
	}
	return s.current, nil
}

// Judged implements transport.AttestationSource. It keeps the attestation.
func (s *Source) Judged(attestation string, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !good {
		s.doubted = append(s.doubted, attestation)
	}
}

// Doubted returns which attestations Judged was told not to be good, in order.
func (s *Source) Doubted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.doubted...)
}

// Rejected returns what Attestation was told to be rejected, in order.
func (s *Source) Rejected() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.rejected...)
}
