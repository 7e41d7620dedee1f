// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// TestOtherKinds: a healthy key of a kind that cannot be used here is no damaged one,
// and nobody is told to delete it.
func TestOtherKinds(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	change := func(f func(*tpm2.TPMTPublic)) tpm2.TPMTPublic {
		template := signingTemplate()
		f(&template)
		return template
	}
	rsa := change(func(p *tpm2.TPMTPublic) {
		p.Type, p.Parameters = tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048})
	})
	ecdsaWith := func(hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
		return change(func(p *tpm2.TPMTPublic) {
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				CurveID: tpm2.TPMECCNistP256,
				Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})},
			})
		})
	}
	p521 := change(func(p *tpm2.TPMTPublic) {
		p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP521})
	})
	kinds := map[string][]byte{
		"RSA":            encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, rsa), ownerParent),
		"SHA-384":        encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, ecdsaWith(tpm2.TPMAlgSHA384)), ownerParent),
		"storage key":    encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, eccPrimary), ownerParent),
		"null hierarchy": encodeKey(under(t, sim, tpm2.TPMRHNull, eccPrimary, signingTemplate()), []byte{0x40, 0, 0, 7}),
		"endorsement":    encodeKey(under(t, sim, tpm2.TPMRHEndorsement, eccPrimary, signingTemplate()), []byte{0x40, 0, 0, 0xb}),
	}
	fake := under(t, sim, tpm2.TPMRHOwner, eccPrimary, signingTemplate())
	p521.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 66)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 66)},
	})
	fake.OutPublic = tpm2.New2B(p521)
	kinds["P-521"] = encodeKey(fake, ownerParent)
	for name, text := range kinds {
		put(t, r, "key", text)
		for what, do := range map[string]func() error{
			"Open":     func() error { _, err := r.Open(t.Context(), "key"); return err },
			"Describe": func() error { _, err := r.Describe(t.Context(), "key"); return err },
			"Persist":  func() error { return r.Persist(t.Context(), "key", handle) },
		} {
			err := do()
			wantError(t, err, keystore.ErrUnavailable, errors.ErrUnsupported)
			if strings.Contains(err.Error(), "delete") || !strings.Contains(err.Error(), "program that made it") {
				t.Errorf("%s, %s: %q gives the wrong advice", name, what, err)
			}
		}
		if err := r.Delete(t.Context(), "key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPolicyNotInFile: a healthy key whose policy its file does not say, as tpm2_create
// -L makes them, or that nobody can use at all, is no damaged one.
func TestPolicyNotInFile(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	locality := func(b *cryptobyte.Builder) {
		explicit := func(tag uint8, f func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
			return func(b *cryptobyte.Builder) { b.AddASN1(asn1.Tag(tag).ContextSpecific().Constructed(), f) }
		}
		explicit(1, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					explicit(0, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(tpm2.TPMCCPolicyLocality)) })(b)
					explicit(1, func(b *cryptobyte.Builder) { b.AddASN1OctetString([]byte{1}) })(b)
				})
			})
		})(b)
	}
	policy := bytes.Repeat([]byte{7}, 32)
	for name, tt := range map[string]struct {
		policy []byte
		inFile []func(*cryptobyte.Builder)
		want   []error
	}{
		"not in the file": {policy, nil, []error{keystore.ErrPolicy, errors.ErrUnsupported}},
		"not known":       {policy, []func(*cryptobyte.Builder){locality}, []error{keystore.ErrPolicy, errors.ErrUnsupported}},
		"none":            {nil, nil, []error{keystore.ErrUnavailable, errors.ErrUnsupported}},
	} {
		template := signingTemplate()
		template.ObjectAttributes.UserWithAuth = false
		template.AuthPolicy = tpm2.TPM2BDigest{Buffer: tt.policy}
		put(t, r, "key", encodeKey(under(t, sim, tpm2.TPMRHOwner, eccPrimary, template), ownerParent, tt.inFile...))
		_, err := r.Open(t.Context(), "key")
		if wantError(t, err, tt.want...); strings.Contains(err.Error(), "delete") || strings.Contains(err.Error(), "boot") {
			t.Errorf("%s: %q gives the wrong advice", name, err)
		}
		if err := r.Delete(t.Context(), "key"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
