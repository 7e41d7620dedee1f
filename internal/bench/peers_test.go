// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	steptpm "go.step.sm/crypto/tpm"
	"go.step.sm/crypto/tpm/storage"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/tpm"
)

// A peer signs with a TPM of its own.
type peer struct {
	name, module string
	commands     int // a signature
	sign         func() error
	calls        *tpmtest.Recorder
	took         []time.Duration
}

var digest = sha256.Sum256([]byte("input"))

// TestPeers counts the commands of a signature, and measures its time beside that of bare
// TPM2_Sign, in turns.
func TestPeers(t *testing.T) {
	peers := []*peer{
		{name: "TPM2_Sign alone", module: "github.com/google/go-tpm", commands: 1, sign: nil},
		{name: "instancekey", commands: 1},
		{name: "go-attestation", module: "github.com/google/go-attestation", commands: 1},
		{name: "go.step.sm/crypto", module: "go.step.sm/crypto", commands: 4},
		{name: "go-tpm-keyfiles", module: "github.com/foxboron/go-tpm-keyfiles", commands: 7},
	}
	for i, begin := range []func(*testing.T, *tpmtest.Recorder) func() error{bare, own, attestation, smallstep, keyfiles} {
		p := peers[i]
		p.calls = tpmtest.Record(tpmtest.SWTPM(t, tpmtest.SWConfig{}))
		p.sign = begin(t, p.calls)
		err := p.sign()
		for range 20 {
			if err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond) // swtpm tests itself at its first use, and says to retry
			err = p.sign()
		}
		if err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		p.calls.Reset()
		if err := p.sign(); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		if n := p.calls.Count(); n != p.commands {
			t.Errorf("%s: %d commands a signature (%s), want %d", p.name, n, tpmtest.Names(p.calls.Codes()), p.commands)
		}
	}
	if !isMeasuring() {
		return
	}
	for range 300 {
		for _, p := range peers {
			p.calls.Reset()
			start := time.Now()
			if err := p.sign(); err != nil {
				t.Fatal(err)
			}
			p.took = append(p.took, time.Since(start))
		}
	}
	t.Logf("%s %s/%s, %d CPUs, swtpm", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var commands, times []bar
	for _, p := range peers {
		median := quantile(p.took, 0.5)
		ratio := float64(median) / float64(quantile(peers[0].took, 0.5))
		t.Logf("%-16s %-86s %d commands  %8.3f ms  %.2f times TPM2_Sign", p.name, version(p.module), p.commands, ms(median), ratio)
		commands = append(commands, bar{p.name, float64(p.commands), fmt.Sprint(p.commands)})
		times = append(times, bar{p.name, ratio, fmt.Sprintf("%.2f", ratio)})
	}
	drawBars(t, "commands.svg", "TPM commands a signature", commands)
	drawBars(t, "sign.svg", "Time of a signature on swtpm, as a multiple of TPM2_Sign", times)
}

// version returns a module with its version, as go.mod has it.
func version(module string) string {
	required, _ := os.ReadFile("go.mod")
	for line := range strings.Lines(string(required)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == module {
			return module + " " + fields[1]
		}
	}
	return module
}

func own(t *testing.T, calls *tpmtest.Recorder) func() error {
	store, err := tpm.Open(t.Context(), tpm.Config{Dial: calls.Dial, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	key, err := store.CreateKey(t.Context(), "key", tpm.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return func() error { _, err := key.Sign(t.Context(), []byte("input")); return err }
}

func dial(t *testing.T, calls *tpmtest.Recorder) transport.TPMCloser {
	conn, err := calls.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func bare(t *testing.T, calls *tpmtest.Recorder) func() error {
	conn := dial(t, calls)
	public := tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
	})
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: public}.Execute(conn)
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		_, err := tpm2.Sign{
			KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
			Digest:    tpm2.TPM2BDigest{Buffer: digest[:]},
			InScheme: tpm2.TPMTSigScheme{
				Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
			},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(conn)
		return err
	}
}

func keyfiles(t *testing.T, calls *tpmtest.Recorder) func() error {
	conn := dial(t, calls)
	key, err := keyfile.NewLoadableKey(conn, tpm2.TPMAlgECC, 256, nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := key.Signer(conn, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return signWith(signer)
}

func signWith(signer crypto.Signer) func() error {
	return func() error { _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); return err }
}

func attestation(t *testing.T, calls *tpmtest.Recorder) func() error {
	device, err := attest.OpenTPM(&attest.OpenConfig{CommandChannel: &channel{TPMCloser: dial(t, calls)}})
	if err != nil {
		t.Fatal(err)
	}
	ak, err := device.NewAK(&attest.AKConfig{Algorithm: attest.ECDSA})
	if err != nil {
		t.Fatal(err)
	}
	key, err := device.NewKey(ak, &attest.KeyConfig{Algorithm: attest.ECDSA, Size: 256})
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.Private(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signWith(private.(crypto.Signer))
}

func smallstep(t *testing.T, calls *tpmtest.Recorder) func() error {
	device, err := steptpm.New(steptpm.WithSimulator(openChannel{&channel{TPMCloser: dial(t, calls)}}), steptpm.WithStore(storage.NewDirstore(t.TempDir())))
	if err != nil {
		t.Fatal(err)
	}
	key, err := device.CreateKey(t.Context(), "key", steptpm.CreateKeyConfig{Algorithm: "ECDSA", Size: 256})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := key.Signer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return signWith(signer)
}

// openChannel is for go.step.sm/crypto, which opens /dev/tpm0 beside any other channel than
// that of a simulator.
type openChannel struct{ *channel }

func (openChannel) Open() error { return nil }

// channel is a connection for go-attestation, which writes a command and reads its answer.
type channel struct {
	transport.TPMCloser
	answer []byte
}

func (c *channel) Write(command []byte) (n int, err error) {
	c.answer, err = c.Send(command)
	return len(command), err
}

func (c *channel) Read(p []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (c *channel) MeasurementLog() ([]byte, error) { return nil, errors.New("none") }
