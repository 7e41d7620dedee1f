// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/tpm"
)

// A setup is what a token needs beyond the device: the server, the attester and what
// both know of the client.
type setup struct {
	*doctor
	network  http.RoundTripper
	issuer   *documents // what the issuer's places for metadata have answered
	attester *witness   // nil: nobody is to attest

	key    keystore.Key
	client *client.Client // nil without -issuer
}

// newSetup returns what is to be examined, and nil without -client-id.
func (d *doctor) newSetup(network http.RoundTripper) (*setup, error) {
	if d.flags.clientID == "" {
		return nil, nil
	}
	s := &setup{doctor: d, network: network, issuer: &documents{base: network}}
	if d.flags.attesters() > 0 {
		attester, err := d.flags.chooseAttester(d.p, network)
		if err != nil {
			return nil, err
		}
		s.attester = &witness{Attester: attester}
	}
	return s, nil
}

// examine goes from what is alone to what needs it: server, attester, attestation, and
// whether the server takes that. works says that the TPM does.
func (s *setup) examine(ctx context.Context, works bool) error {
	step := s.p.progress.step("examining the set-up")
	defer step()
	done, err := s.openKey(ctx, works)
	if err != nil {
		return err
	}
	defer done()
	known := false
	if s.flags.issuer != "" {
		if s.client, err = s.newClient(ctx, s.flags.clientFlags, nil); err != nil {
			return err
		}
		defer s.client.Close()
		known = s.examineServer(ctx)
	}
	if s.attester == nil || s.key == nil {
		return nil
	}
	if s.flags.attester == "" || s.examineAttester(ctx) {
		if s.examineAttestation(ctx, known) && known {
			s.examineAuthentication(ctx)
		}
	}
	return nil
}

// openKey opens the key that token would use, or makes one that is gone afterwards. It
// reports which.
func (s *setup) openKey(ctx context.Context, works bool) (done func(), err error) {
	const check = "instance key"
	none := func() {}
	if !s.flags.hasTPM() && (s.flags.store.Store == "" || s.flags.store.Keys == "") {
		s.key, err = softkey.New().CreateKey(ctx, "doctor", softkey.KeyOptions{Algorithm: s.flags.store.Algorithm})
		s.ok(check, "one in software, for these checks alone")
		return none, err
	}
	if s.flags.hasTPM() && !works {
		s.warn(check, "see the TPM first", "there is none without a TPM: attester and attestation are not examined")
		return none, nil
	}
	if s.flags.store.Keys != "" {
		if done, err := s.openNamed(ctx); s.key != nil || err != nil {
			return done, err
		}
	}
	if s.flags.attestation != "" {
		s.fail(check, "instancectl key import, with the key that was provisioned; or correct -keys and -name", "the key %s, which -attestation is for, is not there or needs a PIN", s.keyName())
		return none, nil
	}
	flags := s.flags.store
	flags.Keys = "" // a temporary folder
	store, err := s.open(ctx, &flags)
	if err != nil {
		s.fail(check, "see the TPM", "one cannot be made for these checks: %v", err)
		return none, nil
	}
	if s.key, err = store.Create(ctx, "doctor"); err != nil {
		s.fail(check, adviceOnKey(err, "see the TPM"), "one cannot be made for these checks: %v", err)
	} else {
		s.ok(check, "one of %s, for these checks alone; token makes or uses %s", s.key.Algorithm(), s.keyName())
	}
	return func() { store.Close() }, nil
}

// openNamed opens the key that token would use, if it is there and can sign.
func (s *setup) openNamed(ctx context.Context) (done func(), err error) {
	const check = "instance key"
	store, err := s.open(ctx, &s.flags.store)
	if err != nil {
		return func() {}, nil // the key folder's fault, which was found
	}
	done = func() { store.Close() }
	key, err := store.Open(ctx, s.keyName())
	if err == nil {
		if s.flags.store.PINFile == "" && hasPIN(ctx, store.Store, s.keyName()) {
			err = keystore.ErrAuth
		}
	}
	if err != nil {
		done() // the TPM may serve one at a time
		return func() {}, nil
	}
	s.key = key
	s.ok(check, "%s, %s", s.keyName(), key.Algorithm())
	return done, nil
}

func hasPIN(ctx context.Context, store keystore.Store, name string) bool {
	s, ok := store.(*tpm.Store)
	if !ok {
		return false
	}
	description, err := s.Describe(ctx, name)
	return err != nil || description.PIN
}

func (f *clientFlags) keyName() string {
	if f.name != "" {
		return f.name
	}
	return client.DefaultKeyName(f.issuer, f.clientID)
}

func (s *setup) keyName() string { return s.flags.keyName() }

// newClient returns a client with the key. Metadata that is known is not asked for.
func (s *setup) newClient(ctx context.Context, flags clientFlags, metadata *client.Metadata) (*client.Client, error) {
	cfg := client.Config{
		Issuer: flags.issuer, ClientID: flags.clientID, Key: s.key, Attester: s.attester, Base: s.issuer,
		Method: methods[flags.method], Profile: profiles[flags.profile], Metadata: metadata,
	}
	if s.attester == nil {
		cfg.Attester = &witness{}
	}
	if s.key == nil { // the server can be examined all the same
		var err error
		if cfg.Key, err = softkey.New().Create(ctx, "doctor"); err != nil {
			return nil, err
		}
	}
	if flags.dpop {
		cfg.DPoP = client.DPoPOwnKey
	}
	return client.New(ctx, cfg)
}

// A witness remembers what an attester has said.
type witness struct {
	client.Attester

	mu   sync.Mutex
	last string
}

func (w *witness) Attest(ctx context.Context, req client.AttestRequest) (string, error) {
	if w.Attester == nil {
		return "", errors.New("nobody is to attest")
	}
	attestation, err := w.Attester.Attest(ctx, req)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = attestation
	return attestation, err
}

// said returns the last attestation, "" for none.
func (w *witness) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// String shows nothing of what was said.
func (w *witness) String() string { return fmt.Sprintf("witness of %T", w.Attester) }
