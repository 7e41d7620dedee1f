package tpm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

var (
	binding     = bytes.Repeat([]byte{0xb1}, sha256.Size)
	certificate = []byte{0x30, 0} // nobody here looks into it
	allPCRs     = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}
)

const (
	ccCertify            = tpm2.TPMCCCertify
	ccQuote              = tpm2.TPMCCQuote
	ccNVReadPublic       = tpm2.TPMCCNVReadPublic
	ccNVRead             = tpm2.TPMCCNVRead
	ccActivateCredential = tpm2.TPMCCActivateCredential
	ccPolicySecret       = tpm2.TPMCCPolicySecret
)

func attestable(t *testing.T, key keystore.Key) keystore.AttestableKey {
	t.Helper()
	k, ok := key.(keystore.AttestableKey)
	if !ok {
		t.Fatalf("%T is no AttestableKey", key)
	}
	return k
}

func prove(t *testing.T, key keystore.Key, pcrs ...int) keystore.Evidence {
	t.Helper()
	evidence, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{
		Binding: binding, PCRs: pcrs, AKCertificates: [][]byte{certificate},
	})
	if err != nil {
		t.Fatalf("Evidence: %v", err)
	}
	return evidence
}

func enrol(t *testing.T, key keystore.Key) keystore.Enrolment {
	t.Helper()
	enrolment, err := attestable(t, key).Enrolment(t.Context())
	if err != nil {
		t.Fatalf("Enrolment: %v", err)
	}
	return enrolment
}

type statement struct {
	Version      string   `cbor:"ver"`
	Algorithm    int      `cbor:"alg"`
	Certificates [][]byte `cbor:"x5c"`
	Signature    []byte   `cbor:"sig"`
	CertifyInfo  []byte   `cbor:"certInfo"`
	Public       []byte   `cbor:"pubArea"`
}

// readStatement decodes a statement, which must be canonical and have nothing
// else in it.
func readStatement(t *testing.T, encoded []byte) statement {
	t.Helper()
	strict, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Format    string    `cbor:"fmt"`
		Statement statement `cbor:"attStmt"`
	}
	if err := strict.Unmarshal(encoded, &object); err != nil {
		t.Fatalf("the statement %x: %v", encoded, err)
	}
	var members map[string]any
	if err := strict.Unmarshal(encoded, &members); err != nil {
		t.Fatal(err)
	}
	canonical, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := canonical.Marshal(members); err != nil || !bytes.Equal(again, encoded) {
		t.Errorf("the statement %x is not canonical", encoded)
	}
	if object.Format != "tpm" || object.Statement.Version != "2.0" || object.Statement.Algorithm != -7 {
		t.Errorf("statement: fmt %q, ver %q, alg %d", object.Format, object.Statement.Version, object.Statement.Algorithm)
	}
	return object.Statement
}

// verifyEvidence verifies what an attester would, by two implementations. local
// says that the key was made in the TPM.
func verifyEvidence(t *testing.T, key keystore.Key, ak []byte, evidence keystore.Evidence, local bool, pcrs ...int) {
	t.Helper()
	s := readStatement(t, evidence.Statement)
	if len(s.Certificates) != 1 || !bytes.Equal(s.Certificates[0], certificate) {
		t.Errorf("x5c is %x", s.Certificates)
	}
	certified, err := verifyAttest(t, ak, s.CertifyInfo, s.Signature).Attested.Certify()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(certified.Name.Buffer, name.Buffer) {
		t.Errorf("certified is %x, and pubArea is that of %x", certified.Name.Buffer, name.Buffer)
	}
	if pub, err := tpm2.Pub(*public); err != nil || !key.Public().(*ecdsa.PublicKey).Equal(pub) {
		t.Errorf("pubArea is another key's: %v", err)
	}
	akPublic, err := attest.ParseAKPublic(ak)
	if err != nil {
		t.Fatal(err)
	}
	parameters := attest.CertificationParameters{Public: s.Public, CreateAttestation: s.CertifyInfo, CreateSignature: s.Signature}
	if err := parameters.Verify(attest.VerifyOpts{Public: akPublic.Public, Hash: crypto.SHA256}); (err == nil) != local {
		t.Errorf("go-attestation about the key: %v", err)
	}
	verifyQuote(t, ak, akPublic, evidence.Quote, pcrs)
}

func verifyQuote(t *testing.T, ak []byte, akPublic *attest.AKPublic, quote *keystore.Quote, pcrs []int) {
	t.Helper()
	if len(pcrs) == 0 {
		if quote != nil {
			t.Errorf("a quote that nobody asked for: %+v", quote)
		}
		return
	}
	if quote == nil {
		t.Fatal("no quote")
	}
	if got := slices.Sorted(maps.Keys(quote.PCRs)); !slices.Equal(got, pcrs) || quote.HashAlg != 11 {
		t.Errorf("quoted are the PCRs %d of bank %d, want %d of 11", got, quote.HashAlg, pcrs)
	}
	info, err := verifyAttest(t, ak, quote.Quoted, quote.Signature).Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	var values []attest.PCR
	for _, pcr := range pcrs {
		digest.Write(quote.PCRs[pcr])
		values = append(values, attest.PCR{Index: pcr, Digest: quote.PCRs[pcr], DigestAlg: crypto.SHA256})
	}
	if !bytes.Equal(digest.Sum(nil), info.PCRDigest.Buffer) {
		t.Error("the PCRs' values are not those that were quoted")
	}
	if err := akPublic.VerifyAll([]attest.Quote{{Quote: quote.Quoted, Signature: quote.Signature}}, values, binding); err != nil {
		t.Errorf("go-attestation about the quote: %v", err)
	}
}

// verifyAttest verifies a TPMS_ATTEST of the attestation key.
func verifyAttest(t *testing.T, ak, attested, signature []byte) *tpm2.TPMSAttest {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := signed.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	joined := append(pad(rs.SignatureR.Buffer), pad(rs.SignatureS.Buffer)...)
	if !verifyES256(pub.(*ecdsa.PublicKey), attested, joined) || rs.Hash != tpm2.TPMAlgSHA256 {
		t.Errorf("the signature %x is not the attestation key's", signature)
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](attested)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(attested, []byte("\xffTCG")) || !bytes.Equal(attest.ExtraData.Buffer, binding) {
		t.Errorf("%x is not from a TPM, or not bound to %x", attested, binding)
	}
	return attest
}

func verifyES256(key *ecdsa.PublicKey, input, signature []byte) bool {
	digest := sha256.Sum256(input)
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

func pad(number []byte) []byte { return append(make([]byte, 32-len(number)), number...) }

// devices returns both kinds of TPM, and the kernel's resource manager.
func devices() map[string]func(*testing.T) tpmtest.Device {
	return map[string]func(*testing.T) tpmtest.Device{
		"simulator":        func(t *testing.T) tpmtest.Device { return tpmtest.Simulator(t) },
		"swtpm":            func(t *testing.T) tpmtest.Device { return tpmtest.SWTPM(t, tpmtest.SWConfig{}) },
		"resource manager": func(t *testing.T) tpmtest.Device { return tpmtest.NewResourceManager(t, tpmtest.Simulator(t)) },
	}
}

// TestEvidence: evidence of each kind of key verifies, and the key signs before
// and after.
func TestEvidence(t *testing.T) {
	for name, device := range devices() {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			r := newRig(t, d, withPIN("1234"))
			for i, o := range append(slices.Clone(kinds),
				tpm.KeyOptions{Algorithm: "ES384"}, tpm.KeyOptions{Algorithm: "ES384", PIN: true, PCRs: []int{0, 7}}) {
				t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
					key := create(t, r.Store, fmt.Sprint("key", i), o)
					ak := enrol(t, key).AK
					verifyEvidence(t, key, ak, prove(t, key), true)
					sign(t, key)
					verifyEvidence(t, key, ak, prove(t, key, 0, 7, 23), true, 0, 7, 23)
					verifyEvidence(t, key, ak, prove(t, key, allPCRs...), true, allPCRs...)
					sign(t, key)

					r.Close()
					r.Store = r.reopen(t)
					key = open(t, r.Store, fmt.Sprint("key", i))
					verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
				})
			}
		})
	}
}

// TestEvidencePersistent: of a key at a persistent handle.
func TestEvidencePersistent(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t), withPIN("1234"))
	for i, o := range kinds {
		name := fmt.Sprint("key", i)
		create(t, r.Store, name, o)
		if err := r.Persist(t.Context(), name, 0x81000001); err != nil {
			t.Fatal(err)
		}
		key := open(t, r.Store, name)
		verifyEvidence(t, key, enrol(t, key).AK, prove(t, key, 7), true, 7)
		if err := r.Unpersist(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEvidenceImported: evidence of a key that was made elsewhere says so.
func TestEvidenceImported(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	_, wrapped := wrap(t, sim, elliptic.P256())
	key, err := r.Import(t.Context(), "imported", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	evidence := prove(t, key, 7)
	verifyEvidence(t, key, enrol(t, key).AK, evidence, false, 7)
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](readStatement(t, evidence.Statement).Public)
	if err != nil {
		t.Fatal(err)
	}
	if public.ObjectAttributes.FixedTPM || public.ObjectAttributes.FixedParent {
		t.Error("the imported key is fixed to the TPM")
	}
}

// TestEvidenceWithoutCertificates: there is no empty x5c.
func TestEvidenceWithoutCertificates(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t))
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	evidence, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	if err != nil {
		t.Fatal(err)
	}
	readStatement(t, evidence.Statement)
	if bytes.Contains(evidence.Statement, []byte("x5c")) {
		t.Errorf("the statement %x has certificates", evidence.Statement)
	}
}

// TestEvidenceRequest: bad requests are refused before anything is sent.
func TestEvidenceRequest(t *testing.T) {
	r := newRig(t, tpmtest.Simulator(t), func(c *tpm.Config) {
		c.EventLog = func(context.Context) ([]byte, error) {
			t.Error("the log was read")
			return nil, nil
		}
	})
	key := attestable(t, create(t, r.Store, "key", tpm.KeyOptions{}))
	r.calls.Reset()
	for name, req := range map[string]keystore.EvidenceRequest{
		"no binding":    {},
		"short binding": {Binding: binding[1:]},
		"long binding":  {Binding: append(binding, 0)},
		"negative PCR":  {Binding: binding, PCRs: []int{-1}},
		"no such PCR":   {Binding: binding, PCRs: []int{24}},
		"PCR twice":     {Binding: binding, PCRs: []int{7, 7}},
	} {
		if evidence, err := key.Evidence(t.Context(), req); err == nil || evidence.Statement != nil {
			t.Errorf("%s: %v, %v", name, evidence, err)
		}
	}
	if n := r.calls.Count(); n != 0 {
		t.Errorf("%d commands were sent", n)
	}
}

// TestEvidenceCommands: which commands evidence is, exactly.
func TestEvidenceCommands(t *testing.T) {
	sim := tpmtest.Simulator(t)
	quote := []tpm2.TPMCC{ccCreatePrimary, ccCertify, ccPCRRead, ccQuote, ccFlush}
	openPIN := []tpm2.TPMCC{ccCreatePrimary, ccStartSession, ccFlush}
	for _, tt := range []struct {
		options     tpm.KeyOptions
		first, warm []tpm2.TPMCC
		sign        []tpm2.TPMCC // afterwards
	}{
		{tpm.KeyOptions{}, quote, quote, []tpm2.TPMCC{ccSign}},
		{tpm.KeyOptions{PIN: true}, slices.Concat(openPIN, quote), quote, []tpm2.TPMCC{ccSign}},
		{tpm.KeyOptions{PCRs: []int{7}}, quote, quote, []tpm2.TPMCC{ccStartSession, ccPolicyPCR, ccSign}},
		{
			tpm.KeyOptions{PCRs: []int{7}, PIN: true},
			slices.Concat(openPIN, openPIN, quote, []tpm2.TPMCC{ccFlush}), slices.Concat(openPIN, quote, []tpm2.TPMCC{ccFlush}),
			[]tpm2.TPMCC{ccPolicyPCR, ccPolicyAuthValue, ccSign},
		},
	} {
		t.Run(fmt.Sprintf("%+v", tt.options), func(t *testing.T) {
			asked := 0
			r := newRig(t, sim, func(c *tpm.Config) {
				c.PIN = func(context.Context, string) ([]byte, error) {
					asked++
					return []byte("1234"), nil
				}
			})
			key := create(t, r.Store, "key", tt.options)
			asked = 0
			r.calls.Reset()
			prove(t, key, 0, 1, 2, 3, 4, 5, 6, 7)
			r.calls.Want(t, tt.first...)
			r.calls.Reset()
			prove(t, key, 7)
			r.calls.Want(t, tt.warm...)
			r.calls.Reset()
			sign(t, key)
			r.calls.Want(t, tt.sign...)
			if want := map[bool]int{true: 1}[tt.options.PIN]; asked != want {
				t.Errorf("the PIN was asked for %d times, want %d", asked, want)
			}
			if n := len(tpmtest.Handles(t, sim, tpm2.TPMHTTransient)); n != 1 {
				t.Errorf("%d objects in the TPM, want the key alone", n)
			}
		})
	}
	t.Run("more", func(t *testing.T) {
		r := newRig(t, sim)
		key := create(t, r.Store, "key", tpm.KeyOptions{})
		r.calls.Reset()
		prove(t, key)
		r.calls.Want(t, ccCreatePrimary, ccCertify, ccFlush)
		r.calls.Reset()
		prove(t, key, allPCRs...)
		r.calls.Want(t, ccCreatePrimary, ccCertify, ccPCRRead, ccPCRRead, ccPCRRead, ccQuote, ccFlush)
	})
}

// TestEvidenceSlots: with one of three slots taken by another program, ten keys
// take turns at evidence, enrolment and signing.
func TestEvidenceSlots(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	other := createPrimary(t, sim)
	defer flush(t, sim, other)
	var keys []keystore.Key
	for i := range 10 {
		keys = append(keys, create(t, r.Store, fmt.Sprint(i), tpm.KeyOptions{}))
	}
	ak := enrol(t, keys[0]).AK
	for i, key := range keys {
		verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
		sign(t, keys[(i+5)%10])
		activate(t, sim, key)
		sign(t, key)
	}
	if n := r.calls.Count(ccCertify); n != 10 {
		t.Errorf("%d TPM2_Certify were sent, want 10", n)
	}
}

// TestQuoteOfChangingPCRs: values and quote belong together, also while
// something is measured in between.
func TestQuoteOfChangingPCRs(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	key := create(t, r.Store, "key", tpm.KeyOptions{})
	ak := enrol(t, key).AK
	change := tpmtest.Fault{Command: ccPCRRead, Executed: true, Answer: func(real []byte) []byte {
		tpmtest.ExtendPCR(t, sim, 7, "event")
		return real
	}}
	change.Times = 4
	r.faults.Add(change)
	verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
	if reads, quotes := r.calls.Count(ccPCRRead), r.calls.Count(ccQuote); reads != 5 || quotes != 5 {
		t.Errorf("%d reads and %d quotes, want 5 and 5", reads, quotes)
	}
	change.Times = -1
	injection := r.faults.Add(change)
	_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding, PCRs: []int{7}})
	wantError(t, err, keystore.ErrUnavailable)
	if injection.Fired() != 5 {
		t.Errorf("%d reads, want 5", injection.Fired())
	}
}

// TestEvidenceAfterPCRChange: a key whose PCRs have changed does not sign any
// more, but the device can still say so.
func TestEvidenceAfterPCRChange(t *testing.T) {
	for name, device := range devices() {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			r := newRig(t, d, withPIN("1234"))
			for i, o := range []tpm.KeyOptions{{PCRs: []int{16}}, {PCRs: []int{16}, PIN: true}} {
				key := create(t, r.Store, fmt.Sprint(i), o)
				sign(t, key)
				r.Close()
				extend(t, d, 16)
				r.Store = r.reopen(t)
				key = open(t, r.Store, fmt.Sprint(i))
				verifyEvidence(t, key, enrol(t, key).AK, prove(t, key, 16), true, 16)
				_, err := key.Sign(t.Context(), []byte("input"))
				wantError(t, err, keystore.ErrPolicy)
			}
		})
	}
}

func extend(t *testing.T, d tpmtest.Device, pcr int) {
	t.Helper()
	conn, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tpmtest.ExtendPCR(t, conn, pcr, "event")
}

// TestEvidenceWrongPIN: a wrong PIN is tried once, and the PIN is never on the
// bus.
func TestEvidenceWrongPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, o := range []tpm.KeyOptions{{PIN: true}, {PIN: true, PCRs: []int{7}}} {
		pin := "right PIN of the key"
		r := newRig(t, sim, func(c *tpm.Config) {
			c.PIN = func(context.Context, string) ([]byte, error) { return []byte(pin), nil }
		})
		key := create(t, r.Store, "key", o)
		pin = "wrong PIN of the key"
		r.calls.Reset()
		_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
		wantError(t, err, keystore.ErrAuth, tpm2.TPMRCAuthFail)
		if n := r.calls.Count(ccCertify); n != 1 {
			t.Errorf("%d TPM2_Certify were sent, want 1", n)
		}
		pin = "right PIN of the key"
		prove(t, key)
		if r.calls.Saw([]byte("PIN of the key")) {
			t.Error("the PIN was on the bus")
		}
		r.Close()
	}
}

// TestEvidenceAdminWithPolicy: a key that TPM2_Certify would need a policy for
// is told apart before the TPM counts a failure.
func TestEvidenceAdminWithPolicy(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	writeKey(t, sim, r.config.Dir, "key", func(public *tpm2.TPMTPublic) { public.ObjectAttributes.AdminWithPolicy = true })
	key := open(t, r.Store, "key")
	sign(t, key)
	_, err := attestable(t, key).Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding})
	wantError(t, err, keystore.ErrPolicy)
	if n := r.calls.Count(ccCertify); n != 0 {
		t.Errorf("%d TPM2_Certify were sent", n)
	}
}

// TestEvidenceReset: a reboot of the TPM at any moment goes unnoticed, and both
// statements are of the same boot.
func TestEvidenceReset(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for name, device := range map[string]tpmtest.Device{"raw": sim, "resource manager": tpmtest.NewResourceManager(t, sim)} {
		t.Run(name, func(t *testing.T) {
			for _, o := range kinds {
				r := newRig(t, device, withPIN("1234"))
				key := create(t, r.Store, "key", o)
				ak := enrol(t, key).AK
				for _, reset := range []func(){sim.Reset, sim.PowerOff} {
					prove(t, key, 7)
					reset()
					verifyEvidence(t, key, ak, prove(t, key, 7), true, 7)
				}
				// And in the middle, between the two statements.
				r.faults.Add(tpmtest.Fault{Command: ccCertify, Executed: true, Answer: func(real []byte) []byte {
					sim.Reset()
					return real
				}})
				evidence := prove(t, key, 7)
				verifyEvidence(t, key, ak, evidence, true, 7)
				certified := verifyAttest(t, ak, readStatement(t, evidence.Statement).CertifyInfo, readStatement(t, evidence.Statement).Signature)
				quoted := verifyAttest(t, ak, evidence.Quote.Quoted, evidence.Quote.Signature)
				if certified.ClockInfo.ResetCount != quoted.ClockInfo.ResetCount {
					t.Errorf("certified at reset %d, quoted at reset %d", certified.ClockInfo.ResetCount, quoted.ClockInfo.ResetCount)
				}
				r.Close()
			}
		})
	}
}

// TestEvidenceEachCommandFails lets every command of every operation fail in
// every way, one at a time. Afterwards the operation works, and nothing is left
// in the TPM.
func TestEvidenceEachCommandFails(t *testing.T) {
	sim := tpmtest.Simulator(t)
	lost := errors.New("lost")
	for name, way := range map[string]tpmtest.Fault{
		"TPM_RC_FAILURE":       {RC: tpm2.TPMRCFailure},
		"TPM_RC_REFERENCE_H0":  {RC: tpm2.TPMRCReferenceH0},
		"TPM_RC_OBJECT_MEMORY": {RC: tpm2.TPMRCObjectMemory},
		"lost":                 {Err: lost, Lost: true},
		"lost answer":          {Err: lost, Lost: true, Executed: true},
		"torn answer":          {Executed: true, Answer: func(real []byte) []byte { return real[:len(real)-1] }},
		"success without more": {Executed: true, Answer: func([]byte) []byte {
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []tpm.KeyOptions{{}, {PIN: true, PCRs: []int{7}}} {
				evidenceFails(t, sim, way, o)
			}
		})
	}
}

func evidenceFails(t *testing.T, sim *tpmtest.Sim, way tpmtest.Fault, o tpm.KeyOptions) {
	exclusive := func(c *tpm.Config) { c.Exclusive = way.Executed || way.Answer != nil }
	r := newRig(t, sim, withPIN("1234"), exclusive)
	defer func() { r.Close() }() // the last of its Stores
	key := attestable(t, create(t, r.Store, "key", o))
	enrolment := enrol(t, key)
	if err := key.SetAKCertificates(t.Context(), "attester", [][]byte{certify(t, enrolment.AK)}); err != nil {
		t.Fatal(err)
	}
	credential, secret, challenge := makeCredential(t, tpm2.RSAEKTemplate, enrolment)
	operations := []func() error{
		func() error {
			_, err := key.Evidence(t.Context(), keystore.EvidenceRequest{Binding: binding, PCRs: []int{0, 7}})
			return err
		},
		func() error {
			got, err := key.Enrolment(t.Context())
			if err == nil && !bytes.Equal(got.AK, enrolment.AK) {
				t.Error("another attestation key")
			}
			return err
		},
		func() error {
			got, err := key.Activate(t.Context(), credential, secret)
			if err == nil && !bytes.Equal(got, challenge) {
				t.Error("another secret")
			}
			return err
		},
		func() error {
			chain, err := key.AKCertificates(t.Context(), "attester")
			if err == nil && len(chain) != 1 {
				t.Errorf("%d certificates", len(chain))
			}
			return err
		},
	}
	total := 0
	for i, do := range operations {
		for skip := 0; ; skip++ {
			r.Store.Close()
			r.Store = r.reopen(t)
			key = attestable(t, open(t, r.Store, "key"))
			fault := way
			fault.Skip = skip
			injection := r.faults.Add(fault)
			err := do()
			if injection.Fired() == 0 {
				r.faults.Clear()
				if err != nil {
					t.Errorf("operation %d: %v", i, err)
				}
				break
			}
			total++
			if err != nil {
				wantError(t, err)
				if err := do(); err != nil {
					t.Errorf("operation %d, command %d: afterwards: %v", i, skip, err)
				}
			}
			sign(t, key)
			r.Store.Close()
			noLeaks(t, sim)
			if t.Failed() {
				t.Fatalf("operation %d, command %d: %v", i, skip, err)
			}
		}
	}
	if total < 30 {
		t.Errorf("only %d failures were injected", total)
	}
	t.Logf("%d failures injected", total)
}
