// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// TestFilesOfKeyfiles: what github.com/foxboron/go-tpm-keyfiles writes, and so
// ssh-tpm-agent, with its description.
func TestFilesOfKeyfiles(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, bits := range []int{256, 384} {
		for _, pin := range []string{"", "1234"} {
			conn, err := sim.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			options := []keyfile.TPMKeyOption{keyfile.WithDescription("root@gateway")}
			if pin != "" {
				options = append(options, keyfile.WithUserAuth([]byte(pin)))
			}
			made, err := keyfile.NewLoadableKey(conn, tpm2.TPMAlgECC, bits, nil, options...)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, sim, withPIN("1234"))
			path := put(t, r, "key", made.Bytes())
			key := open(t, r.Store, "key")
			sign(t, key)
			prove(t, key)
			if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, made.Bytes()) {
				t.Errorf("P-%d, PIN %q: the file is %s, %v", bits, pin, after, err)
			}
			if n := wrongTries(t, sim); n != 0 {
				t.Errorf("P-%d, PIN %q: %d wrong tries", bits, pin, n)
			}
			r.Close()
		}
	}
}

// TestFilesOfPrograms: what tpm2-tss-engine, ssh-tpm-agent and openssl_tpm2_engine have written for a TPM,
// which is here again, opens and signs, with the right PIN never tried wrong; what
// they have written stays as it was. See testdata/README.md.
func TestFilesOfPrograms(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata/keyfiles/programs", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	sw := tpmtest.SWTPM(t, tpmtest.SWConfig{State: read("swtpm.state")})
	for _, name := range []string{"tpm2-tss-engine", "tpm2-tss-engine-pin", "ssh-tpm-agent", "ssh-tpm-agent-pin",
		"openssl_tpm2_engine", "openssl_tpm2_engine-pin", "openssl_tpm2_engine-da", "openssl_tpm2_engine-wrapped", "openssl_tpm2_engine-pcr"} {
		t.Run(name, func(t *testing.T) {
			text := read(name + ".pem")
			r := newRig(t, sw, withPIN("1234"))
			defer r.Close()
			path := put(t, r, "key", text)
			key := open(t, r.Store, "key")
			sign(t, key)
			sign(t, key)
			prove(t, key)
			if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, text) {
				t.Errorf("the file is %s, %v", after, err)
			}
			if n := status(t, r.Store).Lockout.Failures; n != 0 {
				t.Errorf("%d wrong tries", n)
			}
		})
	}
	r := newRig(t, sw)
	for _, name := range []string{"tpm2-tss-engine-rsa", "openssl_tpm2_engine-rsa"} {
		put(t, r, name, read(name+".pem"))
		_, err := r.Open(t.Context(), name)
		wantError(t, err, keystore.ErrUnavailable, errors.ErrUnsupported)
	}
}
