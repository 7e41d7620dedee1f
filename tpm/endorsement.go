package tpm

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/keystore"
)

// persistentEK is where a device's operating system puts the RSA endorsement
// key, since making it takes long (TCG TPM v2.0 Provisioning Guidance).
const persistentEK = tpm2.TPMHandle(0x81010001)

// Enrolment implements [keystore.AttestableKey]. All keys of a Store share the
// endorsement key and the attestation key. The certificates are read from the
// TPM; many TPMs that are not in a PC have none.
func (k *key) Enrolment(ctx context.Context) (keystore.Enrolment, error) {
	enrolment, err := run(ctx, k.store.device, func(c *call) (keystore.Enrolment, error) {
		return c.enrolment(k.store.config.EndorsementAuth)
	})
	return enrolment, explain("read the endorsement key", err)
}

func (c *call) enrolment(endorsementAuth []byte) (none keystore.Enrolment, err error) {
	ek, err := c.findEK()
	if err != nil {
		return none, err
	}
	var result keystore.Enrolment
	if ek.certificate != nil {
		// Making the key is left out, which can take a minute.
		result.EK = ek.certificate.RawSubjectPublicKeyInfo
		result.EKCertificates = [][]byte{ek.certificate.Raw}
	} else if result.EK, err = c.readEK(ek, endorsementAuth); err != nil {
		return none, err
	}
	ak, err := c.makeAttestationKey(endorsementAuth)
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
}

// findEK returns the first endorsement key that the TPM has a certificate for,
// or the one that every TPM can make.
func (c *call) findEK() (*endorsementKey, error) {
	for _, t := range ekTemplates {
		content, err := c.readNV(t.certificate)
		if err != nil {
			return nil, fmt.Errorf("read the NV index 0x%08x: %w", uint32(t.certificate), err)
		}
		if certificate := parseEKCertificate(content); certificate != nil && t.makes(certificate.PublicKey) {
			return &endorsementKey{t.public, certificate}, nil
		}
	}
	return &endorsementKey{public: ekTemplates[0].public}, nil
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
		return nil, fmt.Errorf("make the endorsement key: %w", endorsementFault(err))
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
