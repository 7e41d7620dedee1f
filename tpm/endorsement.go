// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// persistentEK is where a device's operating system puts the RSA endorsement
// key, since making it takes long (TCG TPM v2.0 Provisioning Guidance).
const persistentEK = tpm2.TPMHandle(0x81010001)

// The NV indexes of endorsement keys, and among these of the certificates that
// lead from theirs to the maker's root (EK Credential Profile 2.5, section
// 2.2.1.5.2): chips that certify their endorsement key themselves, as Intel's do
// from the 11th generation on, have these nowhere else.
const (
	firstEKIndex, lastEKIndex       = tpm2.TPMHandle(0x01c00000), tpm2.TPMHandle(0x01c001ff)
	firstChainIndex, lastChainIndex = tpm2.TPMHandle(0x01c00100), tpm2.TPMHandle(0x01c001ff)
)

const (
	// maxEKCertificates is how many certificates an attester is sent.
	maxEKCertificates = 16
	// maxEKChain is how many bytes are read of a chain, more than so many
	// certificates have.
	maxEKChain = 32 << 10
)

// Enrolment implements [keystore.AttestableKey]. All keys of a Store share the
// endorsement key and the attestation key. The certificates, that of the
// endorsement key first, are read from the TPM, and come from
// Config.EKCertificates; many TPMs that are not in a PC have none.
func (k *key) Enrolment(ctx context.Context) (keystore.Enrolment, error) {
	enrolment, err := run(ctx, k.store.device, func(c *call) (keystore.Enrolment, error) {
		return c.enrolment(&k.store.config)
	})
	return enrolment, explain("read the endorsement key", err)
}

func (c *call) enrolment(cfg *Config) (none keystore.Enrolment, err error) {
	ek, err := c.findEK(cfg)
	if err != nil {
		return none, err
	}
	var result keystore.Enrolment
	if ek.certificate != nil {
		// Making the key is left out, which can take a minute.
		if result.EK, err = x509.MarshalPKIXPublicKey(ek.certificate.PublicKey); err != nil {
			return none, err
		}
		result.EKCertificates = [][]byte{ek.certificate.Raw}
	} else if result.EK, err = c.readEK(ek, cfg.EndorsementAuth); err != nil {
		return none, err
	}
	chain, err := c.readEKChain(ek.indexes)
	if err != nil {
		return none, err
	}
	for _, der := range slices.Concat(chain, cfg.EKCertificates) {
		known := slices.ContainsFunc(result.EKCertificates, func(c []byte) bool { return bytes.Equal(c, der) })
		if !known && ek.certificate != nil && len(result.EKCertificates) < maxEKCertificates {
			result.EKCertificates = append(result.EKCertificates, der)
		}
	}
	ak, err := c.makeAttestationKey(cfg.EndorsementAuth)
	if err != nil {
		return none, err
	}
	defer c.release(ak)
	result.AK = tpm2.Marshal(ak.public)
	return result, nil
}

// endorsementKey is the device's endorsement key, which need not be loaded.
type endorsementKey struct {
	public      tpm2.TPMTPublic   // its template
	certificate *x509.Certificate // nil: there is none
	where       string            // the certificate was found
	indexes     []tpm2.TPMHandle  // the TPM's NV indexes of endorsement keys
}

// findEK returns the first endorsement key that there is a certificate for, or
// the one that every TPM can make. Certificates that were handed over go before
// those in the TPM: whoever has configured them knows why.
func (c *call) findEK(cfg *Config) (*endorsementKey, error) {
	indexes, err := c.indexes(firstEKIndex, lastEKIndex)
	if err != nil {
		return nil, err
	}
	if ek, err := c.findConfiguredEK(cfg, indexes); ek != nil || err != nil {
		return ek, err
	}
	for _, t := range ekTemplates {
		content, err := c.readListed(t.certificate, indexes)
		if err != nil {
			return nil, err
		}
		certificate := parseEKCertificate(content)
		if certificate == nil || !t.makes(certificate.PublicKey) {
			continue
		}
		public, err := c.adaptTemplate(t, indexes)
		return &endorsementKey{public, certificate, fmt.Sprintf("NV index 0x%08x", uint32(t.certificate)), indexes}, err
	}
	if len(cfg.EKCertificates) > 0 {
		return nil, fmt.Errorf("%w: none of the certificates in Config.EKCertificates is for an endorsement key of this TPM, and the TPM itself has none: ask its maker for the certificate of this very TPM", keystore.ErrUnavailable)
	}
	public, err := c.adaptTemplate(ekTemplates[0], indexes)
	return &endorsementKey{public: public, indexes: indexes}, err
}

// findConfiguredEK returns the endorsement key that one of the certificates in
// Config.EKCertificates is for; nil if there is none. Whether it is for this TPM
// shows only when the key is there.
func (c *call) findConfiguredEK(cfg *Config, indexes []tpm2.TPMHandle) (*endorsementKey, error) {
	var leaves []*x509.Certificate
	for _, der := range cfg.EKCertificates {
		if certificate, err := parseCertificate(der); err == nil && !certificate.IsCA {
			leaves = append(leaves, certificate)
		}
	}
	for _, t := range ekTemplates {
		ofKind := slices.DeleteFunc(slices.Clone(leaves), func(c *x509.Certificate) bool { return !t.makes(c.PublicKey) })
		if len(ofKind) == 0 {
			continue
		}
		public, err := c.adaptTemplate(t, indexes)
		if err != nil {
			return nil, err
		}
		ek := &endorsementKey{public: public, indexes: indexes, where: "Config.EKCertificates"}
		spki, err := c.readEK(ek, cfg.EndorsementAuth)
		if err != nil {
			return nil, err
		}
		for _, certificate := range ofKind {
			if certified, err := x509.MarshalPKIXPublicKey(certificate.PublicKey); err == nil && bytes.Equal(certified, spki) {
				ek.certificate = certificate
				return ek, nil
			}
		}
	}
	return nil, nil
}

// adaptTemplate reads what the maker of the TPM has written beside the
// certificate.
func (c *call) adaptTemplate(t ekTemplate, indexes []tpm2.TPMHandle) (public tpm2.TPMTPublic, err error) {
	template, err := c.readListed(t.template, indexes)
	if err != nil {
		return public, err
	}
	nonce, err := c.readListed(t.nonce, indexes)
	if err != nil {
		return public, err
	}
	return t.adapt(template, nonce), nil
}

// readEKChain returns the certificates of the chain in the TPM.
func (c *call) readEKChain(indexes []tpm2.TPMHandle) ([][]byte, error) {
	var contents [][]byte
	size := 0
	for _, index := range indexes {
		if index < firstChainIndex || index > lastChainIndex || size >= maxEKChain {
			continue
		}
		content, err := c.readListed(index, indexes)
		if err != nil {
			return nil, err
		}
		contents, size = append(contents, content), size+len(content)
	}
	return splitChain(contents), nil
}

// readListed returns the contents of an NV index if it is in the list.
func (c *call) readListed(index tpm2.TPMHandle, indexes []tpm2.TPMHandle) ([]byte, error) {
	if !slices.Contains(indexes, index) {
		return nil, nil
	}
	content, err := c.readNV(index)
	if err != nil {
		return nil, fmt.Errorf("read the NV index 0x%08x: %w", uint32(index), err)
	}
	return content, nil
}

// readEK returns the SubjectPublicKeyInfo of a key without a certificate.
func (c *call) readEK(ek *endorsementKey, endorsementAuth []byte) ([]byte, error) {
	loaded, err := c.loadEK(ek, endorsementAuth)
	if err != nil {
		return nil, err
	}
	defer c.release(loaded)
	public, err := tpm2.Pub(loaded.public)
	if err != nil {
		return nil, fmt.Errorf("%w: public area of the endorsement key: %w", errGarbled, err)
	}
	info, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: public area of the endorsement key: %w", errGarbled, err)
	}
	return info, nil
}

// loadEK finds the key at its persistent handle or makes it. The caller must
// release it.
func (c *call) loadEK(ek *endorsementKey, endorsementAuth []byte) (*object, error) {
	persistent, err := c.readObject(persistentEK)
	if err == nil && ek.is(&persistent.public) {
		return persistent, nil
	}
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return nil, err
	}
	made, err := c.makePrimary(tpm2.TPMRHEndorsement, endorsementAuth, ek.public)
	if err != nil {
		return nil, fmt.Errorf("make the endorsement key: %w", err)
	}
	if !ek.is(&made.public) {
		c.release(made)
		return nil, fmt.Errorf("%w: the endorsement key that this TPM makes is not that of its certificate (%s): the TPM's endorsement seed was changed after it was certified, or the certificate is another TPM's: ask the maker of the device", keystore.ErrUnavailable, ek.where)
	}
	return made, nil
}

// is reports whether public is that of this key, and not of another one that
// somebody has put in its place.
func (ek *endorsementKey) is(public *tpm2.TPMTPublic) bool {
	template := ek.public
	template.Unique = public.Unique
	if template.Type != public.Type || string(tpm2.Marshal(template)) != string(tpm2.Marshal(*public)) {
		return false
	}
	if ek.certificate == nil {
		return true
	}
	key, err := tpm2.Pub(*public)
	certified, ok := ek.certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return err == nil && ok && certified.Equal(key)
}
