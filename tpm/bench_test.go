// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// BenchmarkSign compares Key.Sign with a bare tpm2.Sign on the same TPM, one
// after the other, so that both see the same machine. "ratio" is the median of
// ours over the median of the bare one: at most 1.05, and 1.10 with a PIN. A
// context that can be cancelled, as nearly all can, costs a change of goroutine
// there and back; the simulator answers in half a millisecond, so that it shows.
func BenchmarkSign(b *testing.B) {
	sim := tpmtest.Simulator(b)
	bare := bareSigner(b, sim)
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		o    tpm.KeyOptions
	}{
		{"plain", context.Background(), tpm.KeyOptions{}},
		{"plain, cancellable", cancellable, tpm.KeyOptions{}},
		{"PIN", context.Background(), tpm.KeyOptions{PIN: true}},
		{"PIN, cancellable", cancellable, tpm.KeyOptions{PIN: true}},
		{"PCRs", context.Background(), tpm.KeyOptions{PCRs: []int{7}}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			config := tpm.Config{Dial: sim.Dial, Dir: filepath.Join(b.TempDir(), "keys")}
			withPIN("1234")(&config)
			s, err := tpm.Open(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			key, err := s.CreateKey(b.Context(), "key", tt.o)
			if err != nil {
				b.Fatal(err)
			}
			warm(b, key)
			var ours, bares []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := key.Sign(tt.ctx, []byte("input")); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				bare()
				ours, bares = append(ours, middle.Sub(start)), append(bares, time.Since(middle))
			}
			b.ReportMetric(float64(median(ours))/float64(median(bares)), "ratio")
			b.ReportMetric(float64(median(ours).Nanoseconds()), "ns/sign")
		})
	}
}

// BenchmarkSignHost is what a signature costs the processor outside of the TPM, whose
// answer to TPM2_Sign is always the same here, and there at once. Beside Key.Sign are two
// programs that have their command encoded ahead, for one key, one session and one hash:
// "ahead" is a crypto.Signer, which returns ASN.1, and "bytes" takes r and s out of where
// they are in the answer, and looks at nothing. All three take turns, a thousand at a time, so that
// they see the same machine; the ratios are those of the medians. Key.Sign also waits for
// its turn, sees to it that key, PIN and policy are still there, and checks the answer.
func BenchmarkSignHost(b *testing.B) {
	const batch = 1000
	canned := &cannedTPM{}
	sim := tpmtest.Simulator(b)
	config := tpm.Config{Dir: filepath.Join(b.TempDir(), "keys"), Dial: func(ctx context.Context) (transport.TPMCloser, error) {
		var err error
		canned.TPMCloser, err = sim.Dial(ctx)
		return canned, err
	}}
	s, err := tpm.Open(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	key, err := s.CreateKey(b.Context(), "key", tpm.KeyOptions{})
	if err != nil {
		b.Fatal(err)
	}
	input := []byte("input")
	warm(b, key)
	command := canned.command
	digest := sha256.Sum256(input)
	place := bytes.Index(command, digest[:])
	send := func() (r, s []byte) {
		digest := sha256.Sum256(input)
		copy(command[place:], digest[:])
		response, err := canned.Send(command)
		if err != nil {
			b.Fatal(err)
		}
		rest := response[14+4:] // behind the header, the size of the parameters, and the algorithms
		r = rest[2:][:binary.BigEndian.Uint16(rest)]
		rest = rest[2+len(r):]
		s = rest[2:][:binary.BigEndian.Uint16(rest)]
		return r, s
	}
	ways := []struct {
		name string
		sign func() []byte
	}{
		{"ours", func() []byte {
			signature, err := key.Sign(context.Background(), input)
			if err != nil {
				b.Fatal(err)
			}
			return signature
		}},
		{"ahead", func() []byte {
			r, s := send()
			der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
			if err != nil {
				b.Fatal(err)
			}
			return der
		}},
		{"bytes", func() []byte {
			r, s := send()
			signature := make([]byte, 64)
			copy(signature[32-len(r):], r)
			copy(signature[64-len(s):], s)
			return signature
		}},
	}
	if !bytes.Equal(ways[2].sign(), ways[0].sign()) {
		b.Error("two signatures")
	}
	took := make([][]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			start := time.Now()
			for range batch {
				way.sign()
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	for i, way := range ways {
		b.ReportMetric(float64(median(took[i]).Nanoseconds())/batch, "ns/"+way.name)
		b.ReportMetric(testing.AllocsPerRun(100, func() { way.sign() }), "allocs/"+way.name)
	}
	b.ReportMetric(float64(median(took[0]))/float64(median(took[1])), "ratio-to-ahead")
	b.ReportMetric(float64(median(took[0]))/float64(median(took[2])), "ratio-to-bytes")
}

// A cannedTPM gives its first answer to TPM2_Sign again to every other one.
type cannedTPM struct {
	transport.TPMCloser
	command, answer []byte
}

// Send implements transport.TPM.
func (c *cannedTPM) Send(command []byte) ([]byte, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCSign {
		return c.TPMCloser.Send(command)
	}
	if c.answer != nil {
		return c.answer, nil
	}
	answer, err := c.TPMCloser.Send(command)
	c.command, c.answer = bytes.Clone(command), bytes.Clone(answer)
	return answer, err
}

func warm(b *testing.B, key keystore.Key) {
	for range 10 {
		if _, err := key.Sign(b.Context(), []byte("input")); err != nil {
			b.Fatal(err)
		}
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// bareSigner loads a key and returns a function that signs with go-tpm alone.
func bareSigner(b testing.TB, sim *tpmtest.Sim) func() {
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(keyfile.ECCSRK_H2_Template)}.Execute(sim)
	if err != nil {
		b.Fatal(err)
	}
	parent := tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}
	scheme := tpm2.TPMTECCScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
	}
	created, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: scheme}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	})}.Execute(sim)
	if err != nil {
		b.Fatal(err)
	}
	loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: created.OutPrivate, InPublic: created.OutPublic}.Execute(sim)
	if err != nil {
		b.Fatal(err)
	}
	flush(b, sim, srk.ObjectHandle)
	b.Cleanup(func() { flush(b, sim, loaded.ObjectHandle) })
	digest := sha256.Sum256([]byte("input"))
	return func() {
		_, err := tpm2.Sign{
			KeyHandle:  tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.PasswordAuth(nil)},
			Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(sim)
		if err != nil {
			b.Fatal(err)
		}
	}
}
