package attester_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"strconv"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/keystore"
)

// A device is a TPM and what it takes to misuse it: it speaks the protocol with
// go-tpm alone, so that anything may be wrong with what it says.
type device struct {
	t     testing.TB
	tpm   transport.TPM
	maker *factory.TPMMaker
	ekKey tpm2.TPMTPublic // template of the endorsement key
	ekDER []byte          // its certificate; nil: the maker issues one
	akKey tpm2.TPMTPublic // template of the attestation key

	firmware *factory.Firmware
	log      []byte
}

var (
	attributesOfAK = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true}
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

func (k *key) flush() { tpm2.FlushContext{FlushHandle: k.handle}.Execute(k.d.tpm) }

func (k *key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

func (d *device) ek() *key { return d.load(tpm2.TPMRHEndorsement, d.ekKey) }
func (d *device) ak() *key { return d.load(tpm2.TPMRHEndorsement, d.akKey) }

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

// sign signs a digest (TPM2_Sign).
func (k *key) sign(digest []byte) tpm2.TPMTSignature {
	k.d.t.Helper()
	rsp, err := tpm2.Sign{
		KeyHandle:  k.auth(),
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(k.d.tpm)
	if err != nil {
		k.d.t.Fatal(err)
	}
	return rsp.Signature
}

// A key signs JWS as go-jose wants it.

func (k *key) Public() *jose.JSONWebKey        { return &jose.JSONWebKey{Key: k.public} }
func (k *key) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{k.alg()} }
func (k *key) size() int                       { return (k.public.(*ecdsa.PublicKey).Params().BitSize + 7) / 8 }
func (k *key) alg() jose.SignatureAlgorithm {
	return map[int]jose.SignatureAlgorithm{32: jose.ES256, 48: jose.ES384}[k.size()]
}
func (k *key) SignPayload(payload []byte, _ jose.SignatureAlgorithm) ([]byte, error) {
	hash := map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384}[k.size()].New()
	hash.Write(payload)
	signature := k.sign(hash.Sum(nil))
	ecc, err := signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	r, s := ecc.SignatureR.Buffer, ecc.SignatureS.Buffer
	size := k.size()
	raw := make([]byte, 2*size)
	copy(raw[size-len(r):], r)
	copy(raw[2*size-len(s):], s)
	return raw, nil
}

func (k *key) thumbprint() string {
	k.d.t.Helper()
	thumbprint, err := keystore.Thumbprint(k.public)
	if err != nil {
		k.d.t.Fatal(err)
	}
	return thumbprint
}

func bindingOf(challenge, thumbprint string) []byte {
	digest := sha256.Sum256([]byte(challenge + "." + thumbprint))
	return digest[:]
}

// A proof is evidence before it is encoded.
type proof struct {
	format    any
	statement object // attStmt
	quotes    []object
	log       []byte
	omit      bool   // leave out what is said of the platform
	attObj    []byte // instead of format and statement
}

// prove makes good evidence for a key.
func (d *device) prove(k *key, challenge string, chain [][]byte, pcrs []int) *proof {
	d.t.Helper()
	ak := d.ak()
	defer ak.flush()
	binding := bindingOf(challenge, k.thumbprint())
	certInfo, signature := d.certify(ak, k, binding)
	alg := -7
	if _, ok := ak.public.(*ecdsa.PublicKey); !ok {
		alg = -257
	}
	return &proof{
		format:    "tpm",
		statement: object{"ver": "2.0", "alg": alg, "x5c": chain, "sig": signature, "certInfo": certInfo, "pubArea": k.area},
		quotes:    []object{d.quote(ak, tpm2.TPMAlgSHA256, pcrs, binding)},
		log:       d.log,
	}
}

func (p *proof) encode(t testing.TB) object {
	t.Helper()
	attObj := p.attObj
	if attObj == nil {
		attObj = encodeCBOR(t, object{"fmt": p.format, "attStmt": p.statement})
	}
	evidence := object{"attObj": base64.RawURLEncoding.EncodeToString(attObj)}
	if !p.omit {
		platform := object{"quotes": p.quotes}
		if p.log != nil {
			platform["tcgEventLog"] = p.log
		}
		evidence["tpmAttestation"] = platform
	}
	return evidence
}

func encodeCBOR(t testing.TB, v any) []byte {
	t.Helper()
	data, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func clone(o object) object { return maps.Clone(o) }
