// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
)

// Provisioned is what a device needs to be an instance of a client without ever
// talking to the attester: step (f).
type Provisioned struct {
	// Key is the private key, encrypted so that only the device's TPM can use
	// it: a TSS2 PEM "importable key" (draft-bottomley-tpm2-keys), which
	// instancectl key import reads.
	Key []byte
	// Attestation is the Client Attestation JWT for it.
	Attestation string
}

// Provision makes a P-256 key for the device with that endorsement key (see
// [evidence.Endorsement]), wraps it for the TPM's storage root key, which the
// registry must have, and issues the attestation ahead. It says what the
// registry knows of the device, and nothing of what it will have booted.
//
// The attestation is valid for lifetime, which has no default: a device that never
// talks to the attester stops working after it, and to revoke what it has before
// that, the attester's key must be taken away. Where the key has certificates
// (Config.Key), they must be valid for as long.
//
// Who made a key has had it. Such a key is therefore not fixedTPM and fixedParent
// (TPM2_Import refuses one that is), and a request of the device for another
// attestation for it is refused with key_not_protected: what was provisioned is
// renewed by provisioning again.
func (s *Server) Provision(clientID, ek string, lifetime time.Duration) (*Provisioned, error) {
	provisioned, err := s.provision(clientID, ek, lifetime)
	if err != nil {
		return nil, fmt.Errorf("attester: provision: %w", err)
	}
	s.cfg.Logger.Info("client attestation provisioned", slog.String("client_id", clientID), slog.String("ek", ek), slog.Duration("lifetime", lifetime))
	return provisioned, nil
}

func (s *Server) provision(clientID, ek string, lifetime time.Duration) (*Provisioned, error) {
	if err := s.checkLifetime(lifetime); err != nil {
		return nil, err
	}
	if !slices.Contains(s.cfg.Clients, clientID) {
		return nil, fmt.Errorf("client %q is not served here", clientID)
	}
	if s.cfg.Evidence == nil {
		return nil, errors.New("this attester knows no devices")
	}
	device, claims, err := s.cfg.Evidence.Device(ek)
	if err != nil {
		return nil, err
	}
	if device.StorageRoot == nil {
		return nil, fmt.Errorf("the registry has no storage root key for the TPM %s", ek)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrap(key, device.StorageRoot)
	if err != nil {
		return nil, err
	}
	attestation, err := s.issue(clientID, &key.PublicKey, lifetime, claims)
	if err != nil {
		return nil, err
	}
	return &Provisioned{Key: wrapped, Attestation: attestation}, nil
}

// checkLifetime refuses a lifetime that what is provisioned would not reach.
func (s *Server) checkLifetime(lifetime time.Duration) error {
	switch {
	case lifetime == 0:
		return errors.New("say how long the attestation is to be valid: the device cannot renew it")
	case lifetime < max(time.Second, 2*s.cfg.Rounding):
		return fmt.Errorf("a lifetime of %v is shorter than a second, or than twice the rounding", lifetime)
	}
	expiry := s.cfg.Now().Add(lifetime)
	for _, certificate := range s.cfg.Key.Certificates {
		if expiry.After(certificate.NotAfter) {
			return fmt.Errorf("the attestation is to be valid until %v, and the attester's certificate for %q only until %v: give it a shorter life, or the attester another certificate",
				expiry.UTC().Format(time.DateOnly), certificate.Subject, certificate.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	return nil
}

// wrap encrypts a key for a storage key, as TPM2_Duplicate would, and returns it
// as a TSS2 importable key (TPM 2.0 Library, part 1, "Duplication").
func wrap(key *ecdsa.PrivateKey, parent *tpm2.TPMTPublic) ([]byte, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	secret, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	public := &tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			SignEncrypt:  true,
			UserWithAuth: true,
			NoDA:         true, // it has no PIN to guess
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]},
			Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		}),
	}
	sensitive := tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgECC,
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: secret}),
	})
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, err
	}
	recipient, err := tpm2.ImportEncapsulationKey(parent)
	if err != nil {
		return nil, err
	}
	duplicate, seed, err := tpm2.CreateDuplicate(rand.Reader, recipient, name.Buffer, sensitive)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: keyfile.Marshal(&keyfile.TPMKey{
		Keytype:   keyfile.OIDImportableKey,
		EmptyAuth: true,
		Parent:    tpm2.TPMRHOwner,
		Pubkey:    tpm2.New2B(*public),
		Privkey:   tpm2.TPM2BPrivate{Buffer: duplicate},
		Secret:    tpm2.TPM2BEncryptedSecret{Buffer: seed},
	})}), nil
}
