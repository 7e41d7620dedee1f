// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto"
	"crypto/x509"
	"strconv"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/factory"
)

// A device is a TPM and what it takes to misuse it: it speaks the protocol with
// go-tpm alone, so that anything may be wrong with what it says.
type device struct {
	t     testing.TB
	tpm   transport.TPM
	maker *factory.TPMMaker
	ekKey tpm2.TPMTPublic // template of the endorsement key
	ekDER []byte          // its certificate; nil: the maker issues one
	kept  map[string]*key // persistent keys, by template: making an RSA key takes long
	akKey tpm2.TPMTPublic // template of the attestation key

	firmware *factory.Firmware
	log      []byte
}

var (
	attributesOfAK = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true, NoDA: true}
	attributesOfCI = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true}
)

// eccKey is the template of a signing key. unique makes different keys of it.
func eccKey(attributes tpm2.TPMAObject, curve tpm2.TPMECCCurve, hash tpm2.TPMIAlgHash, unique string) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgECC,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: attributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: curve,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte(unique)}}),
	}
}

func rsaAK(bits int, hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgRSA,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: attributesOfAK,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: tpm2.TPMKeyBits(bits),
			Scheme: tpm2.TPMTRSAScheme{
				Scheme:  tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{}),
	}
}

// newDevice is a good device, and has booted.
func newDevice(t testing.TB, tpm transport.TPM, maker *factory.TPMMaker, firmware *factory.Firmware) *device {
	t.Helper()
	d := &device{
		t: t, tpm: tpm, maker: maker, firmware: firmware,
		ekKey: tpm2.ECCEKTemplate,
		akKey: eccKey(attributesOfAK, tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, ""),
	}
	d.boot(firmware)
	return d
}

func (d *device) boot(firmware *factory.Firmware) {
	d.t.Helper()
	log, err := factory.Boot(d.tpm, firmware)
	if err != nil {
		d.t.Fatal(err)
	}
	d.firmware, d.log = firmware, log
}

// A key is a primary key in the TPM.
type key struct {
	d      *device
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	area   []byte // TPMT_PUBLIC
	public crypto.PublicKey
}

// load makes a primary key: the same one each time. Its handle must be flushed.
func (d *device) load(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic) *key {
	d.t.Helper()
	if kept := d.kept[string(tpm2.Marshal(template))]; kept != nil {
		return kept
	}
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(d.tpm)
	if err != nil {
		d.t.Fatal(err)
	}
	area, err := rsp.OutPublic.Contents()
	if err != nil {
		d.t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		d.t.Fatal(err)
	}
	return &key{d: d, handle: rsp.ObjectHandle, name: rsp.Name, area: tpm2.Marshal(*area), public: public}
}

func (k *key) flush() {
	if k.handle>>24 != tpm2.TPMHandle(tpm2.TPMHTPersistent) {
		tpm2.FlushContext{FlushHandle: k.handle}.Execute(k.d.tpm)
	}
}

func (k *key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

func (d *device) ek() *key { return d.load(tpm2.TPMRHEndorsement, d.ekKey) }
func (d *device) ak() *key { return d.load(tpm2.TPMRHEndorsement, d.akKey) }

// keep makes a key of the endorsement hierarchy persistent.
func (d *device) keep(template tpm2.TPMTPublic) {
	d.t.Helper()
	made := d.load(tpm2.TPMRHEndorsement, template)
	defer made.flush()
	kept := *made
	kept.handle = 0x81010020 + tpm2.TPMHandle(len(d.kept))
	_, err := tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: made.handle, Name: made.name},
		PersistentHandle: kept.handle,
	}.Execute(d.tpm)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.kept == nil {
		d.kept = make(map[string]*key)
	}
	d.kept[string(tpm2.Marshal(template))] = &kept
}

// secondAK is the template of another attestation key of the same kind.
func (d *device) secondAK() tpm2.TPMTPublic {
	second := d.akKey
	if second.Type == tpm2.TPMAlgRSA {
		second.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: []byte("second")})
	} else {
		second.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte("second")}})
	}
	return second
}

// public runs f on a key and forgets the key.
func withKey[T any](k *key, f func(*key) T) T {
	defer k.flush()
	return f(k)
}

func spki(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// enrolment is what a good device sends first: a JSON object to be spoilt.
func (d *device) enrolment() object {
	d.t.Helper()
	ek := withKey(d.ek(), func(k *key) crypto.PublicKey { return k.public })
	certificate := d.ekDER
	if certificate == nil {
		var err error
		if certificate, err = d.maker.Certify(ek, nil); err != nil {
			d.t.Fatal(err)
		}
	}
	return object{
		"ek":      spki(d.t, ek),
		"ekCerts": [][]byte{certificate},
		"params":  object{"public": withKey(d.ak(), func(k *key) []byte { return k.area })},
	}
}

// activate answers the challenge for the AK with that template.
func (d *device) activate(ak tpm2.TPMTPublic, credential, secret []byte) ([]byte, error) {
	d.t.Helper()
	k := d.load(tpm2.TPMRHEndorsement, ak)
	defer k.flush()
	ek := d.ek()
	defer ek.flush()
	ekAuth := ek.auth()
	if !d.ekKey.ObjectAttributes.UserWithAuth { // a template of the low range
		session, closeSession, err := tpm2.PolicySession(d.tpm, tpm2.TPMAlgSHA256, 16)
		if err != nil {
			d.t.Fatal(err)
		}
		defer closeSession()
		_, err = tpm2.PolicySecret{
			AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
			PolicySession: session.Handle(),
			NonceTPM:      session.NonceTPM(),
		}.Execute(d.tpm)
		if err != nil {
			d.t.Fatal(err)
		}
		ekAuth.Auth = session
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: k.auth(),
		KeyHandle:      ekAuth,
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	return rsp.CertInfo.Buffer, nil
}

// certify has the AK say where the key is.
func (d *device) certify(ak, k *key, qualifying []byte) (certInfo, signature []byte) {
	d.t.Helper()
	rsp, err := tpm2.Certify{
		ObjectHandle:   k.auth(),
		SignHandle:     ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(d.tpm)
	if err != nil {
		d.t.Fatal(err)
	}
	return rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)
}

// quote has the AK say what PCRs hold, and reads them.
func (d *device) quote(ak *key, bank tpm2.TPMIAlgHash, pcrs []int, qualifying []byte) object {
	d.t.Helper()
	var indices []uint
	for _, pcr := range pcrs {
		indices = append(indices, uint(pcr))
	}
	selection := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(indices...)}}}
	rsp, err := tpm2.Quote{
		SignHandle:     ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection,
	}.Execute(d.tpm)
	if err != nil {
		d.t.Fatal(err)
	}
	read, err := tpm2.PCRRead{PCRSelectionIn: selection}.Execute(d.tpm)
	if err != nil {
		d.t.Fatal(err)
	}
	values := object{}
	for i, pcr := range pcrs {
		values[strconv.Itoa(pcr)] = read.PCRValues.Digests[i].Buffer
	}
	return object{"hashAlgo": int(bank), "pcrValues": values, "rawQuote": rsp.Quoted.Bytes(), "rawSignature": tpm2.Marshal(rsp.Signature)}
}
