// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/keyfolder"
	"github.com/instancekey/instancekey/internal/privatefile"
	"github.com/instancekey/instancekey/keystore"
)

const (
	blockCertificate = "CERTIFICATE"

	// maxChain is how many certificates an attester may issue for the
	// attestation key.
	maxChain = 8
)

// attestationTemplate is the public area of the attestation key. The key is
// restricted: it signs what the TPM itself says and nothing made to look like
// it. It is a primary key, made anew for each use, always the same in a TPM; and
// one of the endorsement hierarchy, since firmware version and reset count are
// obfuscated in what keys of other hierarchies sign (TPM 2.0 Part 1,
// "Attestation").
//
// Changing anything here makes another key, which has to be enrolled anew.
var attestationTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM:            true,
		FixedParent:         true,
		SensitiveDataOrigin: true,
		UserWithAuth:        true,
		NoDA:                true,
		Restricted:          true,
		SignEncrypt:         true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
}

// makeAttestationKey makes the attestation key. The caller must release it.
func (c *call) makeAttestationKey(endorsementAuth []byte) (*object, error) {
	ak, err := c.makePrimary(tpm2.TPMRHEndorsement, endorsementAuth, attestationTemplate)
	if err != nil {
		return nil, fmt.Errorf("make the attestation key: %w", err)
	}
	return ak, nil
}

// AKCertificates implements [keystore.AttestableKey]. All keys of a Store share
// the attestation key and its certificates. They are in a file of their own in
// Config.Dir for each attester; one that cannot be read as certificates counts as
// none, since enrolling again makes it good. It costs two commands if there is a
// file.
func (k *key) AKCertificates(ctx context.Context, attester string) ([][]byte, error) {
	const doing = "read the attestation key's certificates"
	if err := k.store.device.ready(ctx); err != nil {
		return nil, fmt.Errorf("tpm: %s: %w", doing, err)
	}
	text, err := privatefile.Read(k.store.chainPath(attester), keyfolder.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tpm: %s: %w: %w", doing, keystore.ErrUnavailable, err)
	}
	chain, leaf := decodeChain(text)
	if leaf == nil {
		return nil, nil
	}
	public, err := run(ctx, k.store.device, func(c *call) (*tpm2.TPMTPublic, error) {
		ak, err := c.makeAttestationKey(k.store.config.EndorsementAuth)
		if err != nil {
			return nil, err
		}
		defer c.release(ak)
		return &ak.public, nil
	})
	if err != nil {
		return nil, explain(doing, err)
	}
	if !isKeyOf(leaf, public) {
		return nil, nil // another TPM's, or of before its seed was changed
	}
	return chain, nil
}

// SetAKCertificates implements [keystore.AttestableKey]. It takes one to eight
// certificates and sends no command.
func (k *key) SetAKCertificates(ctx context.Context, attester string, chain [][]byte) error {
	const doing = "keep the attestation key's certificates"
	if err := k.store.device.ready(ctx); err != nil {
		return fmt.Errorf("tpm: %s: %w", doing, err)
	}
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})...)
	}
	if _, leaf := decodeChain(text); leaf == nil || len(text) > keyfolder.MaxSize {
		return fmt.Errorf("tpm: %s: the attester gave no chain of 1 to %d certificates", doing, maxChain)
	}
	if err := privatefile.Replace(k.store.chainPath(attester), text); err != nil {
		return fmt.Errorf("tpm: %s: %w: %w", doing, keystore.ErrUnavailable, err)
	}
	return nil
}

// chainPath is where the certificates of one attester are. It begins with a dot,
// as no key's file does.
func (s *Store) chainPath(attester string) string {
	sum := sha256.Sum256([]byte(attester))
	return filepath.Join(s.folder.String(), ".ak-"+hex.EncodeToString(sum[:])+".pem")
}

// decodeChain returns the certificates in a PEM text and the first of them, or
// nil if there is anything else in it.
func decodeChain(text []byte) (chain [][]byte, leaf *x509.Certificate) {
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != blockCertificate || len(chain) == maxChain {
			return nil, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil
		}
		if leaf == nil {
			leaf = certificate
		}
		chain = append(chain, block.Bytes)
		text = rest
	}
	return chain, leaf
}

func isKeyOf(certificate *x509.Certificate, public *tpm2.TPMTPublic) bool {
	key, err := tpm2.Pub(*public)
	if err != nil {
		return false
	}
	ak, ok := key.(*ecdsa.PublicKey)
	return ok && ak.Equal(certificate.PublicKey)
}
