// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectEnrolment: whose attestation key is certified. Each case is the
// first request of an enrolment, spoilt.
func TestRejectEnrolment(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), nil)
	ek := withKey(w.d.ek(), func(k *key) crypto.PublicKey { return k.public })
	stranger, err := factory.NewTPMMaker(w.now)
	if err != nil {
		t.Fatal(err)
	}
	certificates := func(list ...[]byte) func(*world, object) {
		return func(_ *world, o object) { o["ekCerts"] = list }
	}
	certified := func(change func(*x509.Certificate)) func(*world, object) {
		return func(w *world, o object) {
			der, err := w.d.maker.Certify(ek, change)
			if err != nil {
				w.t.Fatal(err)
			}
			o["ekCerts"] = [][]byte{der}
		}
	}
	foreign, err := stranger.Certify(ek, nil)
	if err != nil {
		t.Fatal(err)
	}
	area := func(area tpm2.TPMTPublic) func(*world, object) {
		return func(_ *world, o object) { o["params"] = object{"public": tpm2.Marshal(area)} }
	}
	// ak changes the AK that the device really has.
	ak := func(change func(*tpm2.TPMTPublic)) func(*world, object) {
		return func(w *world, o object) {
			raw := o["params"].(object)["public"].([]byte)
			public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
			if err != nil {
				w.t.Fatal(err)
			}
			change(public)
			o["params"] = object{"public": tpm2.Marshal(*public)}
		}
	}
	// other names another EK, with a certificate of its own.
	other := func(public crypto.PublicKey) func(*world, object) {
		return func(w *world, o object) {
			der, err := w.d.maker.Certify(public, nil)
			if err != nil {
				w.t.Fatal(err)
			}
			o["ek"], o["ekCerts"] = spki(w.t, public), [][]byte{der}
		}
	}
	rsaOf := func(bits int) *rsa.PublicKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return &key.PublicKey
	}
	rsaArea := func(bits int, hash tpm2.TPMIAlgHash, modulus int) tpm2.TPMTPublic {
		area := rsaAK(bits, hash)
		n := new(big.Int).SetBit(big.NewInt(1), modulus-1, 1)
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: n.Bytes()})
		return area
	}
	unrestricted := w.d.akKey
	unrestricted.ObjectAttributes.Restricted = false
	realUnrestricted := withKey(w.d.load(tpm2.TPMRHEndorsement, unrestricted), func(k *key) []byte { return k.area })
	listAll := func(w *world) { w.registry["attest_unlisted_devices"] = true }

	cases := []struct {
		name, code, reason string
		operator           func(*world) // changes the operator's files
		spoil              func(*world, object)
	}{
		{"no EK certificate", "untrusted_tpm", "no EK certificate", nil, func(_ *world, o object) { delete(o, "ekCerts") }},
		{"unknown manufacturer", "untrusted_tpm", "unknown authority", nil, certificates(foreign)},
		{"self-signed by a namesake", "untrusted_tpm", "EK certificate", nil, certificates(stranger.Root.Raw, foreign)},
		{"ek is not the certificate's key", "untrusted_tpm", "no EK certificate is for ek", nil, func(w *world, o object) {
			o["ek"] = spki(w.t, &newKey(w.t, elliptic.P256()).PublicKey)
		}},
		{"ek is no key", "invalid_request", "ek:", nil, func(_ *world, o object) { o["ek"] = []byte("key") }},
		{"ek is missing", "invalid_request", "ek:", nil, func(_ *world, o object) { delete(o, "ek") }},
		{"certificate is none", "untrusted_tpm", "certificate 1 cannot be read: x509", nil, certificates([]byte("certificate"))},
		{"17 certificates", "untrusted_tpm", "17 EK certificates", nil, certificates(slices.Repeat([][]byte{foreign}, 17)...)},
		{"EK certificate expired", "untrusted_tpm", "expired", nil, certified(func(c *x509.Certificate) { c.NotAfter = w.now.Add(-time.Second) })},
		{"EK certificate not valid yet", "untrusted_tpm", "not yet valid", nil, certified(func(c *x509.Certificate) { c.NotBefore = w.now.Add(time.Minute) })},
		{"EK certificate without its key usage", "untrusted_tpm", "no extended key usage 2.23.133.8.1", nil, certified(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil })},
		{"EK certificate with another key usage", "untrusted_tpm", "no extended key usage 2.23.133.8.1", nil, certified(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}}
		})},
		{"EK certificate of a CA", "untrusted_tpm", "CA certificate", nil, certified(func(c *x509.Certificate) { c.IsCA = true })},
		{"EK certificate names no TPM", "untrusted_tpm", "SubjectAltName", nil, certified(func(c *x509.Certificate) { c.ExtraExtensions = nil })},
		{"EK certificate is for signatures", "untrusted_tpm", "KeyAgreement", nil, certified(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })},
		{"EK certificate revoked", "untrusted_tpm", "has been revoked", func(w *world) { w.revoke(7, time.Hour) }, certified(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })},
		{"revocation list out of date", "untrusted_tpm", "out of date", func(w *world) { w.revoke(8, -time.Second) }, certified(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) })},
		{"EK blocked", "untrusted_tpm", "blocked", func(w *world) { w.registry["blocked"] = []string{w.ek} }, nil},
		{"EK not in the registry", "untrusted_tpm", "not in the registry", func(w *world) { w.registry["devices"] = nil }, nil},
		{"EK on P-521", "untrusted_tpm", "only P-256 and P-384", listAll, other(&newKey(t, elliptic.P521()).PublicKey)},
		{"EK is RSA with 1024 bits", "untrusted_tpm", "RSA with 1024 bits", listAll, other(rsaOf(1024))},

		{"unrestricted AK", "invalid_ak", "not restricted", nil, func(_ *world, o object) { o["params"] = object{"public": realUnrestricted} }},
		{"AK not fixedTPM", "invalid_ak", "fixedTPM", nil, ak(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false })},
		{"AK not fixedParent", "invalid_ak", "fixedParent", nil, ak(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false })},
		{"AK not sensitiveDataOrigin", "invalid_ak", "sensitiveDataOrigin", nil, ak(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false })},
		{"AK decrypts", "invalid_ak", "signatures alone", nil, ak(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true })},
		{"AK does not sign", "invalid_ak", "signatures alone", nil, ak(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false })},
		{"AK with SHA-1 Name", "invalid_ak", "nameAlg", nil, ak(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 })},
		{"AK signs with SHA-1", "invalid_ak", "ECDSA and SHA-256", nil, area(eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA1, ""))},
		{"AK on P-384", "invalid_ak", "curve 0x4", nil, area(eccKey(attributesOfAK, tpm2.TPMECCNistP384, tpm2.TPMAlgSHA256, ""))},
		{"AK is no point", "invalid_ak", "public key of the AK", nil, area(eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "x"))},
		{"AK is RSA with 1024 bits", "invalid_ak", "1024 bits", nil, area(rsaArea(1024, tpm2.TPMAlgSHA256, 1024))},
		{"AK is RSA with 1024 bits and says 2048", "invalid_ak", "RSA with 1024 bits", nil, area(rsaArea(2048, tpm2.TPMAlgSHA256, 1024))},
		{"AK is RSA and signs with SHA-1", "invalid_ak", "RSASSA and SHA-256", nil, area(rsaArea(2048, tpm2.TPMAlgSHA1, 2048))},
		{"AK is a keyed hash", "invalid_ak", "type 0x8", nil, area(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: attributesOfAK,
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}}),
			Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, 32)}),
		})},
		{"trailing bytes in TPMT_PUBLIC", "invalid_ak", "trailing", nil, func(_ *world, o object) {
			o["params"] = object{"public": append(o["params"].(object)["public"].([]byte), 0)}
		}},
		{"TPMT_PUBLIC with a size before it", "invalid_ak", "public area", nil, func(_ *world, o object) {
			raw := o["params"].(object)["public"].([]byte)
			o["params"] = object{"public": append([]byte{0, byte(len(raw))}, raw...)}
		}},
		{"no AK", "invalid_ak", "malformed", nil, func(_ *world, o object) { delete(o, "params") }},

		{"ek is not base64", "invalid_request", "body", nil, func(_ *world, o object) { o["ek"] = "-_-_" }},
		{"body too large", "invalid_request", "too large", nil, func(_ *world, o object) { o["tpmInfo"] = strings.Repeat("x", 64<<10) }},
	}
	refused := 0
	registry := w.registry
	named := 0
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			w.t, w.d.t = t, t
			w.registry, w.crls = clone(registry), nil
			if tc.operator != nil {
				tc.operator(w)
			}
			w.start()
			request := w.d.enrolment()
			if tc.spoil != nil {
				tc.spoil(w, request)
			}
			if w.wantRefusal(w.postJSON("/tpm/attest", request), http.StatusBadRequest, tc.code, tc.reason); !t.Failed() {
				refused++
			}
			if w.lastRecord()["claimed_ek"] == w.ek {
				named++
			}
		})
	}
	w.t, w.d.t = t, t
	if named != 33 {
		t.Errorf("%d refusals are logged with the EK of this device, want 33", named)
	}
	if refused != 40 || len(cases) != 40 {
		t.Errorf("%d of %d enrolments refused for the right reason, want 40", refused, len(cases))
	}
	w.registry, w.crls = registry, nil
	w.start()
	w.enrol()
	w.revoke(8, time.Hour) // a list without this device's certificate
	w.start()
	w.enrol()
}

// revoke gives the TPM maker a revocation list with one serial number.
func (w *world) revoke(serial int64, validFor time.Duration) {
	w.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: w.now.Add(-time.Hour), NextUpdate: w.now.Add(validFor),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: w.now}},
	}, w.d.maker.Root, w.d.maker.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.crls = []*x509.RevocationList{list}
}
