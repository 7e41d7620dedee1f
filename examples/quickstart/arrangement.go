// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/attester/evidence"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/keystore"
)

// policyFile is the authorization server's policy about devices: which ones get
// tokens.
//
//go:embed policy.json
var policyFile []byte

// An arrangement is what evidence there can be with one kind of key store, and
// what the servers have been told about devices for it.
type arrangement struct {
	// boot starts the device. Nil: it is not the demonstration's own, and was
	// started by somebody else.
	boot func(transport.TPM) ([]byte, error)
	// verifier is the attester's. Nil: it takes no evidence.
	verifier func() (*evidence.Verifier, error)
	// certify certifies an endorsement key. Nil: the certificate in the TPM is good.
	certify func(ek crypto.PublicKey) ([]byte, error)
	policy  json.RawMessage // the authorization server's; nil: none
	note    string          // why not everything is proved; "" if it is
}

// arrange says what can be shown with a store. A TPM that is not the
// demonstration's own is only asked to sign: nothing is written to it and nothing
// measured into its PCRs, and the boot log of the machine is not read.
func arrange(store string) (*arrangement, error) {
	kind, _, _ := strings.Cut(store, ":")
	switch kind {
	case "simulator":
		v, err := newVendor(time.Now)
		if err != nil {
			return nil, err
		}
		d := &device{vendor: v, model: modelX1, version: current, secureBoot: true}
		return &arrangement{
			boot:     d.boot,
			verifier: func() (*evidence.Verifier, error) { return v.verifier(d) },
			policy:   policyFile,
		}, nil
	case "tcp", "unix":
		v, err := newVendor(time.Now)
		if err != nil {
			return nil, err
		}
		return &arrangement{
			verifier: func() (*evidence.Verifier, error) { return v.newVerifier(nil, nil) },
			certify:  func(ek crypto.PublicKey) ([]byte, error) { return v.tpms.Certify(ek, nil) },
			note: "This TPM is not the demonstration's own: no EK certificate is written into it, and no PCRs are extended. So a test CA " +
				"certifies its endorsement key as it is, whoever made it, and there is no word of what was booted.",
		}, nil
	case "soft":
		return &arrangement{note: "No evidence beside the signature: a key in software has none, and this attester asks for none."}, nil
	default:
		return &arrangement{note: "No evidence beside the signature: this may be the TPM of this machine, and a demonstration does not look into it. " +
			"To see its evidence use instancectl evidence; to have it verified run attesterd with -tpm-roots, and instancectl attest."}, nil
	}
}

// start starts both servers, which o watches. The device must have been switched
// on before.
func (a *arrangement) start(o *observer) (*reference.Servers, error) {
	cfg := reference.Config{
		Attester: attester.Config{
			Clients: []string{clientID},
			Logger:  o.attesterLog(),
		},
		AuthServer: authserver.Config{
			Clients:    []authserver.Client{{ID: clientID, Scopes: []string{scope}}},
			Challenges: &authserver.ChallengeConfig{Endpoint: true},
			Logger:     o.authServerLog(),
		},
	}
	var err error
	if a.verifier != nil {
		if cfg.Attester.Evidence, err = a.verifier(); err != nil {
			return nil, err
		}
	}
	if a.policy != nil {
		if cfg.AuthServer.Policy, err = authserver.ParsePolicy(a.policy); err != nil {
			return nil, err
		}
	}
	return reference.Start(cfg)
}

// key returns the key as this demonstration uses it.
func (a *arrangement) key(key keystore.Key) keystore.Key {
	attestable, ok := key.(keystore.AttestableKey)
	if !ok {
		return key
	}
	return &visitingKey{AttestableKey: attestable, certify: a.certify}
}

// A visitingKey enrols with an attester that is gone at the end of the program:
// it leaves no certificates of it beside the key.
type visitingKey struct {
	keystore.AttestableKey
	certify func(ek crypto.PublicKey) ([]byte, error)
	chain   [][]byte
}

// AKCertificates implements keystore.AttestableKey.
func (k *visitingKey) AKCertificates(context.Context, string) ([][]byte, error) { return k.chain, nil }

// SetAKCertificates implements keystore.AttestableKey.
func (k *visitingKey) SetAKCertificates(_ context.Context, _ string, chain [][]byte) error {
	k.chain = chain
	return nil
}

// Enrolment implements keystore.AttestableKey.
func (k *visitingKey) Enrolment(ctx context.Context) (keystore.Enrolment, error) {
	enrolment, err := k.AttestableKey.Enrolment(ctx)
	if err != nil || k.certify == nil {
		return enrolment, err
	}
	ek, err := x509.ParsePKIXPublicKey(enrolment.EK)
	if err != nil {
		return keystore.Enrolment{}, err
	}
	certificate, err := k.certify(ek)
	enrolment.EKCertificates = [][]byte{certificate}
	return enrolment, err
}
