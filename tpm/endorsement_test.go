package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// issue makes a certificate for a public key, of a CA that nobody knows.
func issue(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
		Issuer:       pkix.Name{CommonName: "test CA"},
		// As long as the certificates of vendors are, so that reading takes
		// more than one command.
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: bytes.Repeat([]byte{'x'}, 900)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, ca)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// certify issues a certificate for an attestation key.
func certify(t *testing.T, ak []byte) []byte {
	t.Helper()
	public, err := attest.ParseAKPublic(ak)
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, public.Public)
}

// makePrimary makes an endorsement key.
func makePrimary(t *testing.T, conn transport.TPM, template tpm2.TPMTPublic) (tpm2.NamedHandle, crypto.PublicKey) {
	t.Helper()
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	area, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, public
}

func endorsementPublic(t *testing.T, conn transport.TPM, template tpm2.TPMTPublic) crypto.PublicKey {
	t.Helper()
	ek, public := makePrimary(t, conn, template)
	if _, err := (tpm2.FlushContext{FlushHandle: ek.Handle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
	return public
}

// ownerNV is how a certificate usually lies in a TPM: readable by all.
var ownerNV = tpm2.TPMANV{OwnerWrite: true, AuthWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}

// defineNV defines an NV index of a size; with content it writes it there.
func defineNV(t *testing.T, conn transport.TPM, index tpm2.TPMHandle, attributes tpm2.TPMANV, size int, content []byte) {
	t.Helper()
	public := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(size)}
	_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	for offset := 0; offset < len(content); offset += 512 {
		read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(conn) // the Name changes with the first write
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: read.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: content[offset:min(offset+512, len(content))]},
			Offset:     uint16(offset),
		}.Execute(conn)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func undefineNV(t *testing.T, conn transport.TPM, hierarchy, index tpm2.TPMHandle) {
	t.Helper()
	read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.NVUndefineSpace{AuthHandle: hierarchy, NVIndex: tpm2.NamedHandle{Handle: index, Name: read.NVName}}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
}

// makeCredential makes a challenge as an attester does: for a key made from the
// template, of which it has seen the public half only.
func makeCredential(t *testing.T, template tpm2.TPMTPublic, enrolment keystore.Enrolment) (credential, secret, challenge []byte) {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(enrolment.EK)
	if err != nil {
		t.Fatal(err)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: public.N.Bytes()})
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := len(point) / 2
		template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
		})
	}
	key, err := tpm2.ImportEncapsulationKey(&template)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](enrolment.AK)
	if err != nil {
		t.Fatal(err)
	}
	if a := ak.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		t.Errorf("attestation key with the attributes %+v", a)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		t.Fatal(err)
	}
	challenge = bytes.Repeat([]byte{0x5e}, 32)
	credential, secret, err = tpm2.CreateCredential(rand.Reader, key, name.Buffer, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return credential, secret, challenge
}

// activate enrols key with a TPM without certificates.
func activate(t *testing.T, _ tpmtest.Device, key keystore.Key) {
	t.Helper()
	activateWith(t, key, tpm2.RSAEKTemplate)
}

func activateWith(t *testing.T, key keystore.Key, template tpm2.TPMTPublic) keystore.Enrolment {
	t.Helper()
	enrolment := enrol(t, key)
	credential, secret, challenge := makeCredential(t, template, enrolment)
	got, err := attestable(t, key).Activate(t.Context(), credential, secret)
	if err != nil {
		t.Fatalf("Activate: %v", err)
	}
	if !bytes.Equal(got, challenge) {
		t.Errorf("Activate returned %x, want %x", got, challenge)
	}
	return enrolment
}

// TestEnrolment: with each kind of certificate, the best one counts, and the
// key that is activated is that of the certificate.
func TestEnrolment(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	if enrolment := activateWith(t, key, tpm2.RSAEKTemplate); len(enrolment.EKCertificates) != 0 {
		t.Errorf("certificates %x of a TPM that has none", enrolment.EKCertificates)
	}
	templates := tpm.EKTemplates()
	var indexes []tpm2.TPMHandle
	for _, index := range []tpm2.TPMHandle{0x01c00016, 0x01c00014, 0x01c00012, 0x01c0000a, 0x01c00002} { // from the least
		template := templates[index]
		der := issue(t, endorsementPublic(t, sim, template))
		defineNV(t, sim, index, ownerNV, len(der)+100, der)
		indexes = append(indexes, index)
		r.calls.Reset()
		enrolment := activateWith(t, key, template)
		if len(enrolment.EKCertificates) != 1 || !bytes.Equal(enrolment.EKCertificates[0], der) {
			t.Errorf("0x%08x: certificates %x, want %x", index, enrolment.EKCertificates, der)
		}
		if parsed, err := attest.ParseEKCertificate(enrolment.EKCertificates[0]); err != nil || !bytes.Equal(parsed.RawSubjectPublicKeyInfo, enrolment.EK) {
			t.Errorf("0x%08x: the EK is not that of the certificate: %v", index, err)
		}
		if n := r.calls.Count(ccActivateCredential); n != 1 {
			t.Errorf("0x%08x: %d TPM2_ActivateCredential", index, n)
		}
	}
	for _, index := range indexes {
		undefineNV(t, sim, tpm2.TPMRHOwner, index)
	}
	sign(t, key)
}

// TestEnrolmentCommands: what enrolment costs. The endorsement key is not made
// where its certificate tells the public half.
func TestEnrolmentCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	certificate := []tpm2.TPMCC{ccNVReadPublic, ccGetCapability, ccNVRead, ccNVRead}
	want := func(codes ...tpm2.TPMCC) {
		t.Helper()
		r.calls.Want(t, append(certificate, codes...)...)
		r.calls.Reset()
	}
	r.calls.Reset()
	enrolment := enrol(t, key)
	want(ccCreatePrimary, ccFlush)
	credential, secret, _ := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	if _, err := attestable(t, key).Activate(t.Context(), credential, secret); err != nil {
		t.Fatal(err)
	}
	codes := r.calls.Codes()[2:] // the instance key makes room
	r.calls.Reset()
	if got, want := tpmtest.Names(codes), tpmtest.Names(append(certificate, ccReadPublic, ccCreatePrimary, ccCreatePrimary,
		ccStartSession, ccPolicySecret, ccActivateCredential, ccFlush, ccFlush, ccFlush)); got != want {
		t.Errorf("Activate:\n got %s\nwant %s", got, want)
	}

	persist(t, sim, tpm2.RSAEKTemplate)
	if _, err := attestable(t, key).Activate(t.Context(), credential, secret); err != nil {
		t.Fatal(err)
	}
	want(ccReadPublic, ccCreatePrimary, ccStartSession, ccPolicySecret, ccActivateCredential, ccFlush, ccFlush)
}

// persist puts the endorsement key of a template where a device's operating
// system does.
func persist(t *testing.T, conn transport.TPM, template tpm2.TPMTPublic) {
	t.Helper()
	ek, _ := makePrimary(t, conn, template)
	_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: ek, PersistentHandle: 0x81010001}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: ek.Handle}).Execute(conn); err != nil {
		t.Fatal(err)
	}
}

// TestEnrolmentOtherPersistentKey: what somebody else has put at the handle of
// the endorsement key is not taken for it.
func TestEnrolmentOtherPersistentKey(t *testing.T) {
	sim := tpmtest.Simulator(t)
	signing := tpm2.RSAEKTemplate
	signing.ObjectAttributes.UserWithAuth = true
	for name, template := range map[string]tpm2.TPMTPublic{"ECC": tpm2.ECCEKTemplate, "other attributes": signing} {
		sim.Manufacture()
		persist(t, sim, template)
		r := newRig(t, sim)
		if enrolment := activateWith(t, create(t, r.Store, "key", tpm.KeyOptions{}), tpm2.RSAEKTemplate); len(enrolment.EK) < 200 {
			t.Errorf("%s: EK %x", name, enrolment.EK)
		}
		r.Close()
	}
}

// TestEKCertificateInNV: what can be in an NV index, and how it can be read.
func TestEKCertificateInNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	other := issue(t, endorsementPublic(t, sim, tpm2.ECCEKTemplate))
	ownerOnly := tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}
	indexOnly := tpm2.TPMANV{OwnerWrite: true, AuthRead: true, NoDA: true}
	policyOnly := tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true}
	header := append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...)
	for name, tt := range map[string]struct {
		attributes tpm2.TPMANV
		size       int
		content    []byte
		found      bool
	}{
		"exact":                {ownerNV, len(der), der, true},
		"padded with zeros":    {ownerNV, 2000, append(bytes.Clone(der), make([]byte, 100)...), true},
		"padded with ones":     {ownerNV, 2000, append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 100)...), true},
		"TPM 1.2's header":     {ownerNV, 2000, header, true},
		"owner only":           {ownerOnly, len(der), der, true},
		"index only":           {indexOnly, len(der), der, true},
		"policy only":          {policyOnly, len(der), der, false},
		"never written":        {ownerNV, len(der), nil, false},
		"another key's kind":   {ownerNV, len(other), other, false},
		"cut off":              {ownerNV, len(der) - 1, der[:len(der)-1], false},
		"all ones":             {ownerNV, 100, bytes.Repeat([]byte{0xff}, 100), false},
		"a header and no more": {ownerNV, 5, header[:5], false},
		"not a certificate":    {ownerNV, 4, []byte{0x30, 2, 5, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			defineNV(t, sim, 0x01c00002, tt.attributes, tt.size, tt.content)
			defer undefineNV(t, sim, tpm2.TPMRHOwner, 0x01c00002)
			enrolment := activateWith(t, key, tpm2.RSAEKTemplate)
			if found := len(enrolment.EKCertificates) == 1 && bytes.Equal(enrolment.EKCertificates[0], der); found != tt.found {
				t.Errorf("certificates %x", enrolment.EKCertificates)
			}
		})
	}
}

// TestNVOwnerAuth: with a password of the owner hierarchy.
func TestNVOwnerAuth(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true}, len(der), der)
	setHierarchyAuth(t, sim, tpm2.TPMRHOwner, "password of the owner")
	r := newRig(t, sim, func(c *tpm.Config) { c.OwnerAuth = []byte("password of the owner") })
	if enrolment := enrol(t, create(t, r.Store, "key", tpm.KeyOptions{})); len(enrolment.EKCertificates) != 1 {
		t.Error("no certificate")
	}
	if r.calls.Saw([]byte("password of")) {
		t.Error("the password was on the bus")
	}
}

func setHierarchyAuth(t *testing.T, conn transport.TPM, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostileNV: an index that announces much, and a TPM that gives little.
func TestHostileNV(t *testing.T) {
	sim := tpmtest.Simulator(t)
	der := issue(t, endorsementPublic(t, sim, tpm2.RSAEKTemplate))
	defineNV(t, sim, 0x01c00002, ownerNV, len(der), der)
	r := newRig(t, sim)
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	empty := []byte{0x80, 0x02, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0}
	r.faults.Add(tpmtest.Fault{Command: ccNVRead, Times: -1, Answer: func([]byte) []byte { return empty }})
	_, err := key.Enrolment(t.Context())
	wantError(t, err, keystore.ErrUnavailable)
	r.faults.Clear()
	r.faults.Add(tpmtest.Fault{Command: ccGetCapability, Times: -1, Executed: true, Answer: func(real []byte) []byte {
		clear(real[len(real)-4:]) // TPM_PT_NV_BUFFER_MAX is 0
		return real
	}})
	_, err = key.Enrolment(t.Context())
	wantError(t, err, keystore.ErrUnavailable)
	r.faults.Clear()
	r.calls.Reset()
	r.faults.Add(tpmtest.Fault{Command: ccNVReadPublic, Executed: true, Answer: func(real []byte) []byte {
		real[10+2+12], real[10+2+13] = 0xff, 0xff // the size, after index, hash, attributes and an empty policy
		return real
	}})
	enrol(t, key)
	if n := r.calls.Count(ccNVRead); n != 0 {
		t.Errorf("%d times TPM2_NV_Read of an index of 65535 bytes", n)
	}
}

// TestActivateRefused: a challenge that was not made for the keys of this device.
func TestActivateRefused(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	enrolment := enrol(t, key)
	credential, secret, challenge := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	other := enrolment
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if other.EK, err = x509.MarshalPKIXPublicKey(&stranger.PublicKey); err != nil {
		t.Fatal(err)
	}
	otherCredential, otherSecret, _ := makeCredential(t, tpm2.RSAEKTemplate, other)
	changed := bytes.Clone(credential)
	changed[len(changed)-1] ^= 1
	for name, parts := range map[string][2][]byte{
		"nothing":      {},
		"another EK":   {otherCredential, otherSecret},
		"mixed":        {credential, otherSecret},
		"changed":      {changed, secret},
		"cut off":      {credential[:10], secret},
		"with size":    {append([]byte{0, byte(len(credential))}, credential...), secret},
		"short secret": {credential, secret[:255]},
		"too long":     {make([]byte, 4000), secret},
		"long secret":  {credential, make([]byte, 4000)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := key.Activate(t.Context(), parts[0], parts[1])
			if err == nil || got != nil {
				t.Fatalf("%x, %v", got, err)
			}
			for _, sentinel := range sentinels {
				if errors.Is(err, sentinel) {
					t.Errorf("%q matches %v", err, sentinel)
				}
			}
		})
	}
	got, err := key.Activate(t.Context(), credential, secret)
	if err != nil || !bytes.Equal(got, challenge) {
		t.Errorf("%x, %v", got, err)
	}
}

// TestEndorsementAuth: the password of the endorsement hierarchy is used, stays
// off the bus, and the error says where it goes.
func TestEndorsementAuth(t *testing.T) {
	const password = "password of the endorsement"
	sim := tpmtest.Simulator(t)
	setHierarchyAuth(t, sim, tpm2.TPMRHEndorsement, password)
	r := newRig(t, sim, func(c *tpm.Config) { c.EndorsementAuth = []byte(password) })
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	ak := activateWith(t, key, tpm2.RSAEKTemplate).AK
	verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
	if r.calls.Saw([]byte("password of")) {
		t.Error("the password was on the bus")
	}
	r.Close()
	for _, wrong := range []string{"", "wrong"} {
		wrongly := newRig(t, sim, func(c *tpm.Config) { c.EndorsementAuth = []byte(wrong) })
		key := attestable(t, create(t, wrongly.Store, "key", tpm.KeyOptions{}))
		_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
		wantError(t, err, keystore.ErrAuth)
		_, enrolErr := key.Enrolment(t.Context())
		wantError(t, enrolErr, keystore.ErrAuth)
		for _, err := range []error{err, enrolErr} {
			if !bytes.Contains([]byte(err.Error()), []byte("Config.EndorsementAuth")) {
				t.Errorf("%q does not say what to set", err)
			}
		}
		if n := wrongly.calls.Count(ccCertify); n != 0 {
			t.Errorf("%d TPM2_Certify were sent", n)
		}
		wrongly.Close()
	}
}

// TestEndorsementDisabled: what the error says.
func TestEndorsementDisabled(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	r.faults.Add(tpmtest.Fault{Command: ccCreatePrimary, RC: tpm2.TPMRCHierarchy})
	_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	wantError(t, err, keystore.ErrUnavailable, tpm2.TPMRCHierarchy)
	if !bytes.Contains([]byte(err.Error()), []byte("endorsement hierarchy is disabled")) {
		t.Errorf("%q does not say what is wrong", err)
	}
}

// TestManufacturedTPM: the endorsement keys and certificates that
// swtpm_setup makes, as a TPM's vendor does.
func TestManufacturedTPM(t *testing.T) {
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{EKCertificates: true})
	r := newRig(t, sw)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	enrolment := activateWith(t, key, tpm2.RSAEKTemplate)
	if len(enrolment.EKCertificates) != 1 {
		t.Fatalf("%d certificates, want 1", len(enrolment.EKCertificates))
	}
	certificate, err := attest.ParseEKCertificate(enrolment.EKCertificates[0])
	if err != nil || !bytes.Equal(certificate.RawSubjectPublicKeyInfo, enrolment.EK) {
		t.Errorf("the certificate is not the EK's: %v", err)
	}
	if n := r.calls.Count(ccReadPublic); n != 1 {
		t.Errorf("%d TPM2_ReadPublic, want 1: of the persistent endorsement key", n)
	}
	roots, issuers := x509.NewCertPool(), x509.NewCertPool()
	for i, der := range sw.CA(t) {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		[]*x509.CertPool{roots, issuers}[i].AddCert(ca)
	}
	certificate.UnhandledCriticalExtensions = nil // the subject alternative name of a TPM
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, Intermediates: issuers, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	verifyEvidence(t, key, enrolment.AK, prove(t, key, 7), true, 7)
	r.Close()

	// Where the RSA certificate is missing, the P-384 one counts.
	conn, err := sw.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	undefineNV(t, conn, tpm2.TPMRHPlatform, 0x01c00002)
	conn.Close()
	r.Store = r.reopen(t)
	key = open(t, r.Store, "key")
	high := activateWith(t, key, tpm.EKTemplates()[0x01c00016])
	if len(high.EKCertificates) != 1 || bytes.Equal(high.EK, enrolment.EK) || !bytes.Equal(high.AK, enrolment.AK) {
		t.Errorf("enrolment %+v", high)
	}
}

// writeKey makes a key as another program may and writes its file.
func writeKey(t *testing.T, d tpmtest.Device, dir, name string, change func(*tpm2.TPMTPublic)) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	srk, _, err := keyfile.CreateSRK(keyfile.NewTPMSession(conn), tpm2.TPMRHOwner, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keyfile.FlushHandle(conn, srk)
	public := tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true,
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
	change(&public)
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: srk.Handle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)},
		InPublic:     tpm2.New2B(public),
	}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	file := keyfile.NewTPMKey(keyfile.OIDLoadableKey, rsp.OutPublic, rsp.OutPrivate, keyfile.WithParent(tpm2.TPMRHOwner))
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
