// SPDX-License-Identifier: Apache-2.0

package storeflag_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/keystore"
)

// parse returns the flags of a command line.
func parse(t *testing.T, args ...string) *storeflag.Flags {
	t.Helper()
	var f storeflag.Flags
	set := flag.NewFlagSet("", flag.ContinueOnError)
	f.Register(set)
	f.RegisterKeys(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &f
}

func open(t *testing.T, args ...string) *storeflag.Store {
	t.Helper()
	s, err := parse(t, args...).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func thumbprint(t *testing.T, key keystore.Key, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	print, err := keystore.Thumbprint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return print
}

func TestBadFlags(t *testing.T) {
	pin := filepath.Join(t.TempDir(), "pin")
	for name, content := range map[string]string{"empty": "\n", "long": strings.Repeat("1", 33), "zero": "1\x002"} {
		if err := os.WriteFile(pin+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no store":           {nil, "-store is missing"},
		"unknown store":      {[]string{"-store", "hsm"}, `-store "hsm"`},
		"relative path":      {[]string{"-store", "dev/tpm0"}, `-store "dev/tpm0"`},
		"tbs here":           {[]string{"-store", "tbs"}, "only Windows"},
		"tcp without a port": {[]string{"-store", "tcp:"}, `-store "tcp:"`},
		"unix without path":  {[]string{"-store", "unix:"}, `-store "unix:"`},
		"unknown algorithm":  {[]string{"-store", "soft", "-alg", "RS256"}, `-alg "RS256"`},
		"PCR too high":       {[]string{"-store", "/dev/tpmrm0", "-pcrs", "24"}, `-pcrs "24"`},
		"PCR twice":          {[]string{"-store", "/dev/tpmrm0", "-pcrs", "7,7"}, `-pcrs "7,7"`},
		"PCR no number":      {[]string{"-store", "/dev/tpmrm0", "-pcrs", "a"}, `-pcrs "a"`},
		"PIN file missing":   {[]string{"-store", "/dev/tpmrm0", "-pin-file", pin}, "-pin-file"},
		"PIN empty":          {[]string{"-store", "/dev/tpmrm0", "-pin-file", pin + "empty"}, "1 to 32 bytes"},
		"PIN too long":       {[]string{"-store", "/dev/tpmrm0", "-pin-file", pin + "long"}, "1 to 32 bytes"},
		"PIN with a zero":    {[]string{"-store", "/dev/tpmrm0", "-pin-file", pin + "zero"}, "1 to 32 bytes"},
		"soft with PCRs":     {[]string{"-store", "soft", "-pcrs", "7"}, "need a TPM"},
	} {
		t.Run(name, func(t *testing.T) {
			f := parse(t, tt.args...)
			if err := f.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
			if s, err := f.Open(t.Context()); err == nil {
				s.Close()
				t.Error("Open succeeded")
			}
		})
	}
}

func TestAlgorithm(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		for alg, want := range map[string]string{"": "ES256", "ES384": "ES384"} {
			s := open(t, "-store", store, "-alg", alg)
			key, err := s.Create(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			if key.Algorithm() != want {
				t.Errorf("-alg %q: made an %s key", alg, key.Algorithm())
			}
			s.Close()
		}
	})
}

func TestKeysSurvive(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		dir := filepath.Join(t.TempDir(), "keys")
		s := open(t, "-store", store, "-keys", dir)
		key, err := s.Create(t.Context(), "k")
		want := thumbprint(t, key, err)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, "-store", store, "-keys", dir)
		key, err = s.Open(t.Context(), "k")
		if got := thumbprint(t, key, err); got != want {
			t.Errorf("opened %s, made %s", got, want)
		}
		if _, err := key.Sign(t.Context(), []byte("x")); err != nil {
			t.Error(err)
		}
		if names, err := s.List(t.Context()); err != nil || len(names) != 1 {
			t.Errorf("the folder has keys %q, %v", names, err)
		}
		if s.Temporary {
			t.Error("keys in -keys are temporary")
		}
		s.Close()
	})
}

// The seed is what makes the simulated TPM, so another one has lost the key.
func TestSimulatorSeed(t *testing.T) {
	exampletest.NeedSimulator(t)
	dir := t.TempDir()
	s := open(t, "-store", "simulator", "-keys", dir)
	if _, err := s.Create(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	seed := filepath.Join(dir, ".simulator-seed")
	if err := os.Remove(seed); err != nil {
		t.Fatal(err)
	}
	s = open(t, "-store", "simulator", "-keys", dir)
	if _, err := s.Open(t.Context(), "k"); !errors.Is(err, keystore.ErrKeyLost) {
		t.Errorf("with another seed: %v", err)
	}
	s.Close()
	if err := os.WriteFile(seed, []byte("12x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, "-store", "simulator", "-keys", dir).Open(t.Context()); err == nil || !strings.Contains(err.Error(), seed) {
		t.Errorf("with a damaged seed: %v", err)
	}
}

func TestTemporary(t *testing.T) {
	exampletest.NeedSimulator(t)
	t.Setenv("TMPDIR", t.TempDir())
	s := open(t, "-store", "simulator")
	if _, err := s.Create(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(s.Dir); err != nil || info.Mode().Perm() != 0o700 || !s.Temporary {
		t.Errorf("temporary folder: %v, %v", info, err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary folder after Close: %v", err)
	}
}

func TestNoTPM(t *testing.T) {
	for _, store := range []string{"tcp:127.0.0.1:1", "unix:/does/not/exist", "/dev/no-such-tpm"} {
		_, err := parse(t, "-store", store, "-keys", t.TempDir()).Open(t.Context())
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "no TPM") {
			t.Errorf("%s: %v", store, err)
		}
	}
}
