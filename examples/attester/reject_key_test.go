// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
)

// TestRejectKey: what is said of the instance key, by a real TPM.
func TestRejectKey(t *testing.T) { onEachMachine(t, testRejectKey) }

func testRejectKey(t *testing.T, w *machine) {
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()

	// certify puts what the TPM says of another key into the attempt.
	certify := func(a *attempt, template tpm2.TPMTPublic, binding []byte) {
		ak := a.d.ak()
		defer ak.flush()
		other := a.d.load(tpm2.TPMRHOwner, template)
		defer other.flush()
		a.proof.statement["certInfo"], a.proof.statement["sig"] = a.d.certify(ak, other, binding)
		a.proof.statement["pubArea"] = other.area
	}
	other := eccKey(attributesOfCI, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "other")
	duplicable := eccKey(tpm2.TPMAObject{SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, "duplicable")
	// useOther has another key of the TPM sign the request, and prove itself.
	use := func(a *attempt, template tpm2.TPMTPublic) *key {
		other := a.d.load(tpm2.TPMRHOwner, template)
		a.t.Cleanup(other.flush)
		chain, challenge := a.chain, a.challenge
		a.alg, a.signer, a.jwk = other.alg(), other, other.Public()
		a.proof = a.d.prove(other, challenge, chain, a.pcrs)
		return other
	}

	w.run(t, k, chain, []refusal{
		{"other key of the TPM certified", "invalid_evidence", "not the one that signed", func(a *attempt) { certify(a, other, a.binding) }},
		{"software key signs", "invalid_evidence", "certInfo: is not bound", func(a *attempt) { a.signWith(newKey(t, elliptic.P256())) }},
		{"software key signs, challenge bound to it", "invalid_evidence", "not the one that signed", func(a *attempt) {
			a.signWith(newKey(t, elliptic.P256()))
			certify(a, other, a.binding)
		}},
		{"stale nonce", "invalid_evidence", "certInfo: is not bound", func(a *attempt) {
			fresh, _ := a.wants()
			a.challenge = fresh
		}},
		{"nonce not bound to the key", "invalid_evidence", "certInfo: is not bound", func(a *attempt) {
			digest := sha256.Sum256([]byte(a.challenge))
			ak := a.d.ak()
			defer ak.flush()
			a.proof.statement["certInfo"], a.proof.statement["sig"] = a.d.certify(ak, k, digest[:])
		}},
		{"no nonce", "invalid_evidence", "certInfo: is not bound", func(a *attempt) {
			ak := a.d.ak()
			defer ak.flush()
			a.proof.statement["certInfo"], a.proof.statement["sig"] = a.d.certify(ak, k, nil)
		}},
		{"duplicable key", "key_not_protected", "not fixedTPM", func(a *attempt) { use(a, duplicable) }},
		{"pubArea swapped", "invalid_evidence", "pubArea is not what certInfo names", func(a *attempt) {
			area := withKey(a.d.load(tpm2.TPMRHOwner, other), func(k *key) []byte { return k.area })
			a.proof.statement["pubArea"] = area
		}},
		{"pubArea attributes edited", "invalid_evidence", "pubArea is not what certInfo names", func(a *attempt) {
			area, err := tpm2.Unmarshal[tpm2.TPMTPublic](use(a, duplicable).area)
			if err != nil {
				a.t.Fatal(err)
			}
			area.ObjectAttributes.FixedTPM, area.ObjectAttributes.FixedParent = true, true
			a.proof.statement["pubArea"] = tpm2.Marshal(*area)
		}},
		{"pubArea with trailing bytes", "invalid_evidence", "pubArea: has trailing", func(a *attempt) {
			a.proof.statement["pubArea"] = append(a.proof.statement["pubArea"].([]byte), 0)
		}},
		{"pubArea cut", "invalid_evidence", "pubArea: malformed", func(a *attempt) {
			area := a.proof.statement["pubArea"].([]byte)
			a.proof.statement["pubArea"] = area[:len(area)-1]
		}},
		{"pubArea of 64 kB", "invalid_evidence", "more than 32768 bytes", func(a *attempt) { a.proof.statement["pubArea"] = make([]byte, 64<<10) }},
		{"certInfo bit flip", "invalid_evidence", "does not verify", func(a *attempt) {
			a.proof.statement["certInfo"].([]byte)[20] ^= 1
		}},
		{"certInfo empty", "invalid_evidence", "no certInfo", func(a *attempt) { a.proof.statement["certInfo"] = []byte{} }},
		{"DER sig", "invalid_evidence", "no TPMT_SIGNATURE", func(a *attempt) {
			key := newKey(t, elliptic.P256())
			a.proof.statement["sig"], _ = ecdsa.SignASN1(rand.Reader, key, make([]byte, 32))
		}},
		{"sig with trailing bytes", "invalid_evidence", "no TPMT_SIGNATURE", func(a *attempt) {
			a.proof.statement["sig"] = append(a.proof.statement["sig"].([]byte), 0)
		}},
		{"quote as certInfo", "invalid_evidence", "another kind", func(a *attempt) {
			a.proof.statement["certInfo"], a.proof.statement["sig"] = a.proof.quotes[0]["rawQuote"], a.proof.quotes[0]["rawSignature"]
		}},
		{"alg is not the AK's", "invalid_evidence", "alg of the statement is -", func(a *attempt) {
			a.proof.statement["alg"] = -264 - a.proof.statement["alg"].(int) // the other one of -7 and -257
		}},
		{"alg is SHA-1's", "invalid_evidence", "alg of the statement is -65535", func(a *attempt) { a.proof.statement["alg"] = -65535 }},
		{"alg is none", "invalid_evidence", "alg of the statement is 0", func(a *attempt) { a.proof.statement["alg"] = 0 }},
		{"restricted key, by the TPM", "unsupported_key", "restricted", func(a *attempt) {
			restricted := other
			restricted.ObjectAttributes.Restricted = true
			certify(a, restricted, a.binding)
		}},
		{"key with SHA-384 Name, by the TPM", "unsupported_key", "nameAlg", func(a *attempt) {
			named := other
			named.NameAlg = tpm2.TPMAlgSHA384
			certify(a, named, a.binding)
		}},
		{"unrestricted key certifies", "invalid_evidence", "does not verify", func(a *attempt) {
			unrestricted := a.d.akKey
			unrestricted.ObjectAttributes.Restricted = false
			liar := a.d.load(tpm2.TPMRHEndorsement, unrestricted)
			defer liar.flush()
			a.proof.statement["certInfo"], a.proof.statement["sig"] = a.d.certify(liar, k, a.binding)
		}},
		{"other AK than enrolled", "invalid_evidence", "does not verify", func(a *attempt) {
			ak := a.d.load(tpm2.TPMRHEndorsement, a.d.secondAK())
			defer ak.flush()
			a.proof.statement["certInfo"], a.proof.statement["sig"] = a.d.certify(ak, k, a.binding)
		}},
	}, 24)
}

// TestRejectForgedKey: what is said of the instance key, each lie alone.
func TestRejectForgedKey(t *testing.T) {
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) { w.reference = nil })
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	f := w.newForger(nil)
	software := newKey(t, elliptic.P256())
	area := func(change func(*tpm2.TPMTPublic)) func(*attempt) {
		return func(a *attempt) {
			g := &forgery{key: software, area: areaOf(t, &software.PublicKey)}
			change(g.area)
			a.forge(f, g)
		}
	}
	attest := func(change func(*tpm2.TPMSAttest)) func(*attempt) {
		return func(a *attempt) {
			g := &forgery{key: software, area: areaOf(t, &software.PublicKey)}
			a.signWith(software)
			g.attest = attestFor(t, g.area, a.binding)
			change(g.attest)
			a.forge(f, g)
		}
	}
	scheme := func(alg, hash tpm2.TPMAlgID) func(*tpm2.TPMTPublic) {
		return func(p *tpm2.TPMTPublic) {
			parameters, err := p.Parameters.ECCDetail()
			if err != nil {
				t.Fatal(err)
			}
			parameters.Scheme.Scheme = alg
			switch alg {
			case tpm2.TPMAlgECDSA:
				parameters.Scheme.Details = tpm2.NewTPMUAsymScheme(alg, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})
			case tpm2.TPMAlgECDAA:
				parameters.Scheme.Details = tpm2.NewTPMUAsymScheme(alg, &tpm2.TPMSSchemeECDAA{HashAlg: hash})
			}
		}
	}

	// A forger who lies about nothing else is believed: the cases below fail for
	// their own reason.
	a := w.attempt(k, chain)
	a.forge(f, &forgery{})
	w.wantAttestation(w.send(a.request()))
	a = w.attempt(k, chain)
	a.forge(f, &forgery{key: newKey(t, elliptic.P384())})
	w.wantAttestation(w.send(a.request()))

	w.run(t, k, chain, []refusal{
		{"wrong magic", "invalid_evidence", "wrong magic", attest(func(s *tpm2.TPMSAttest) { s.Magic = 0xff544348 })},
		{"Name of another key", "invalid_evidence", "pubArea is not what", attest(func(s *tpm2.TPMSAttest) {
			s.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: make([]byte, 34)}})
		})},
		{"creation as certInfo", "invalid_evidence", "another kind", attest(func(s *tpm2.TPMSAttest) {
			s.Type = tpm2.TPMSTAttestCreation
			s.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCreation, &tpm2.TPMSCreationInfo{})
		})},
		{"nonce with a byte more", "invalid_evidence", "not bound", attest(func(s *tpm2.TPMSAttest) {
			s.ExtraData.Buffer = append(s.ExtraData.Buffer[:32:32], 0)
		})},
		{"certInfo with trailing bytes", "invalid_evidence", "has trailing", func(a *attempt) {
			a.signWith(software)
			good := tpm2.Marshal(*attestFor(t, areaOf(t, &software.PublicKey), a.binding))
			a.forge(f, &forgery{key: software, certInfo: append(good, 0)})
		}},
		{"certInfo that is none", "invalid_evidence", "malformed", func(a *attempt) {
			a.forge(f, &forgery{key: software, certInfo: []byte("not a TPMS_ATTEST")})
		}},
		{"signature says SHA-1", "invalid_evidence", "not ECDSA with SHA-256", func(a *attempt) {
			a.signWith(software)
			certInfo := tpm2.Marshal(*attestFor(t, areaOf(t, &software.PublicKey), a.binding))
			digest := sha1.Sum(certInfo)
			r, s, err := ecdsa.Sign(rand.Reader, f.ak, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			a.forge(f, &forgery{key: software, certInfo: certInfo, signature: tpm2.Marshal(tpm2.TPMTSignature{
				SigAlg: tpm2.TPMAlgECDSA,
				Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
					Hash: tpm2.TPMAlgSHA1, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
				}),
			})})
		}},
		{"signature says RSASSA", "invalid_evidence", "not ECDSA with SHA-256", func(a *attempt) {
			a.forge(f, &forgery{key: software, signature: tpm2.Marshal(tpm2.TPMTSignature{
				SigAlg: tpm2.TPMAlgRSASSA,
				Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{
					Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)},
				}),
			})})
		}},
		{"not fixedTPM", "key_not_protected", "fixedTPM", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false })},
		{"not fixedParent", "key_not_protected", "fixedParent", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false })},
		{"not sensitiveDataOrigin", "key_not_protected", "sensitiveDataOrigin", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false })},
		{"restricted", "unsupported_key", "restricted", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = true })},
		{"decrypts", "unsupported_key", "signatures alone", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true })},
		{"does not sign", "unsupported_key", "signatures alone", area(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false })},
		{"nameAlg SHA-1", "unsupported_key", "nameAlg", area(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 })},
		{"ECDSA with SHA-1", "unsupported_key", "its curve's hash", area(scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA1))},
		{"P-256 with SHA-384", "unsupported_key", "its curve's hash", area(scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA384))},
		{"ECDAA", "unsupported_key", "its curve's hash", area(scheme(tpm2.TPMAlgECDAA, tpm2.TPMAlgSHA256))},
		{"P-521", "unsupported_key", "curve 0x5", area(func(p *tpm2.TPMTPublic) { *p = *areaOf(t, &newKey(t, elliptic.P521()).PublicKey) })},
		{"P-384 certified, P-256 signs", "invalid_evidence", "not the one that signed", area(func(p *tpm2.TPMTPublic) {
			*p = *areaOf(t, &newKey(t, elliptic.P384()).PublicKey)
		})},
		{"RSA", "unsupported_key", "not ECC", area(func(p *tpm2.TPMTPublic) {
			*p = rsaAK(2048, tpm2.TPMAlgSHA256)
			p.ObjectAttributes = attributesOfCI
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)})
		})},
		{"point is not on the curve", "invalid_evidence", "certified key", area(func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: []byte{1}}, Y: tpm2.TPM2BECCParameter{Buffer: []byte{1}},
			})
		})},
	}, 22)
}
