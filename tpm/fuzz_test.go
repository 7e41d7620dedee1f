// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// ourFiles makes key files of every kind that this package writes or imports.
func ourFiles(t testing.TB, sim *tpmtest.Sim) map[string][]byte {
	config := tpm.Config{Dial: sim.Dial, Dir: filepath.Join(t.TempDir(), "keys")}
	withPIN("1234")(&config)
	s, err := tpm.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files := make(map[string][]byte)
	for name, o := range map[string]tpm.KeyOptions{
		"plain": {}, "ES384": {Algorithm: "ES384"}, "PIN": {PIN: true}, "PCRs": {PCRs: []int{7}}, "both": {PCRs: []int{0, 23}, PIN: true},
	} {
		if _, err := s.CreateKey(context.Background(), name, o); err != nil {
			t.Fatal(err)
		}
		if files[name], err = os.ReadFile(filepath.Join(config.Dir, name+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	files["persistent"] = append(bytes.Clone(files["plain"]), pem.EncodeToMemory(&pem.Block{Type: "TPM2 PERSISTENT HANDLE", Bytes: []byte{0x81, 1, 0, 1}})...)
	return files
}

// FuzzKeyFile: a file is refused with keystore.ErrCorrupt, keystore.ErrPolicy or
// errors.ErrUnsupported, or what was understood is written and read again as the same.
func FuzzKeyFile(f *testing.F) {
	paths, err := filepath.Glob("testdata/keyfiles/*.pem")
	if err == nil {
		var more []string
		more, err = filepath.Glob("testdata/keyfiles/programs/*.pem")
		paths = append(paths, more...)
	}
	if err != nil || len(paths) < 9 {
		f.Fatalf("%d seeds, %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("-----BEGIN TSS2 PRIVATE KEY-----\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		checkKeyFile(t, text)
		// A mutated PEM text is seldom PEM: the octets as a key, too.
		checkKeyFile(t, pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: text}))
		if block, _ := pem.Decode(text); block != nil {
			checkKeyFile(t, pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: block.Bytes}))
		}
	})
}

func checkKeyFile(t *testing.T, text []byte) (parsed bool) {
	encoded, err := tpm.ParseKeyFile(text)
	if err != nil {
		if !errors.Is(err, keystore.ErrCorrupt) && !errors.Is(err, keystore.ErrPolicy) && !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("%v", err)
		}
		return false
	}
	again, err := tpm.ParseKeyFile(encoded)
	if err != nil || !bytes.Equal(again, encoded) {
		t.Fatalf("%s\nis read, and written as\n%s\nand this is %v\n%s", text, encoded, err, again)
	}
	return true
}

// TestKeyFiles: the seeds, and what changing any octet of our own files does.
func TestKeyFiles(t *testing.T) {
	for path, want := range map[string]error{
		"openssl": nil, "tpm2-tools": nil,
		"go-tpm-keyfiles-rsa": errors.ErrUnsupported, "go-tpm-keyfiles-policy": nil,
	} {
		text, err := os.ReadFile(filepath.Join("testdata", "keyfiles", path+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tpm.ParseKeyFile(text); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}

	sim := tpmtest.Simulator(t)
	files := ourFiles(t, sim)
	_, files["importable"] = wrap(t, sim, elliptic.P256())
	for name, text := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !checkKeyFile(t, text) {
				t.Error("does not parse")
			}
			block, rest := pem.Decode(text)
			for i := range block.Bytes {
				for _, bit := range []byte{1, 0x80} {
					block.Bytes[i] ^= bit
					checkKeyFile(t, append(pem.EncodeToMemory(block), rest...))
					block.Bytes[i] ^= bit
				}
				checkKeyFile(t, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes[:i]}))
			}
			for i := range text {
				checkKeyFile(t, text[:i])
			}
		})
	}
}

// answers plays a TPM that gives one prepared answer after the other.
type answers struct{ frames [][]byte }

func (a *answers) Send([]byte) ([]byte, error) {
	if len(a.frames) == 0 {
		return nil, errors.New("no more answers")
	}
	answer := a.frames[0]
	a.frames = a.frames[1:]
	return answer, nil
}

// split cuts input at 0x80 0x01 and 0x80 0x02, with which answers begin, and puts
// the right length into each.
func split(input []byte) (frames [][]byte) {
	input = bytes.Clone(input)
	for i := 0; i < len(input); {
		end := i + 1
		for end < len(input) && !(input[end] == 0x80 && end+1 < len(input) && (input[end+1] == 1 || input[end+1] == 2)) {
			end++
		}
		frame := input[i:end]
		if len(frame) >= 10 {
			binary.BigEndian.PutUint32(frame[2:], uint32(len(frame)))
		}
		frames = append(frames, frame)
		i = end
	}
	return frames
}

// FuzzAnswers: whatever a TPM answers, nothing panics, every error has a
// sentinel, and a first signature that is handed out is right.
func FuzzAnswers(f *testing.F) {
	sim := tpmtest.Simulator(f)
	for i, o := range answerKinds {
		f.Add(uint8(i), recordAnswers(f, sim, o))
	}
	f.Fuzz(func(t *testing.T, kind uint8, input []byte) {
		o := answerKinds[int(kind)%len(answerKinds)]
		frames := split(input)
		// Busy answers make a Store wait, which is tested elsewhere.
		frames = slices.DeleteFunc(frames, func(frame []byte) bool {
			return len(frame) >= 10 && slices.Contains([]uint32{0x922, 0x908, 0x90A, 0x920}, binary.BigEndian.Uint32(frame[6:]))
		})
		dir := t.TempDir()
		runAnswers(t, &answers{frames}, dir, o)
	})
}

var answerKinds = []tpm.KeyOptions{{}, {PIN: true}, {PCRs: []int{7}}, {PCRs: []int{7}, PIN: true}}

func recordAnswers(f *testing.F, sim *tpmtest.Sim, o tpm.KeyOptions) (joined []byte) {
	recorder := tpmtest.Record(sim)
	conn, err := recorder.Dial(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	runAnswers(f, conn, f.TempDir(), o)
	for _, e := range recorder.Exchanges() {
		joined = append(joined, e.Response...)
	}
	return joined
}

func runAnswers(t testing.TB, connection transport.TPM, dir string, o tpm.KeyOptions) {
	ctx := context.Background()
	config := tpm.Config{TPM: connection, Dir: dir}
	withPIN("1234")(&config)
	s, err := tpm.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := s.CreateKey(ctx, "key", o)
	if err != nil {
		hasSentinel(t, err)
		return
	}
	signature, err := key.Sign(ctx, []byte("input"))
	if err != nil {
		hasSentinel(t, err)
	} else if !verify(key, []byte("input"), signature) {
		t.Errorf("the signature %x does not verify", signature)
	}
	if err := s.Persist(ctx, "key", handle); err != nil {
		hasSentinel(t, err)
	}
	if err := s.Delete(ctx, "key"); err != nil {
		hasSentinel(t, err)
	}
}

func hasSentinel(t testing.TB, err error) {
	t.Helper()
	if !slices.ContainsFunc(sentinels, func(sentinel error) bool { return errors.Is(err, sentinel) }) {
		t.Errorf("%q has no sentinel", err)
	}
}
