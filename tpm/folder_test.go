// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestBadConfig: refused before anything is opened or made.
func TestBadConfig(t *testing.T) {
	sim := tpmtest.Simulator(t)
	recorder := tpmtest.Record(sim)
	dir := filepath.Join(t.TempDir(), "keys")
	for name, config := range map[string]tpm.Config{
		"no folder":            {Dial: recorder.Dial},
		"Dial and TPM":         {Dir: dir, Dial: recorder.Dial, TPM: sim},
		"Device and Dial":      {Dir: dir, Dial: recorder.Dial, Device: "/dev/tpm0"},
		"zero byte in a value": {Dir: dir, Dial: recorder.Dial, OwnerAuth: []byte("a\x00b")},
	} {
		s, err := tpm.Open(t.Context(), config)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), "tpm: ") {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	if n, _ := recorder.Dials(); n != 0 {
		t.Errorf("the TPM was opened %d times", n)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

// TestBadOptions: nothing is sent and nothing written.
func TestBadOptions(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	for name, o := range map[string]tpm.KeyOptions{
		"algorithm":      {Algorithm: "RS256"},
		"PCR too large":  {PCRs: []int{24}},
		"PCR negative":   {PCRs: []int{-1}},
		"PCR twice":      {PCRs: []int{7, 7}},
		"PIN without":    {PIN: true},
		"huge algorithm": {Algorithm: strings.Repeat("x", 1<<20)},
	} {
		_, err := r.CreateKey(t.Context(), "key", o)
		if err == nil || len(err.Error()) > 300 {
			t.Errorf("%s: %.400v, want a short error", name, err)
		}
	}
	r.calls.Want(t)
	if names, err := r.List(t.Context()); len(names) != 0 || err != nil {
		t.Errorf("List: %q, %v", names, err)
	}
}

// TestBadPIN: refused before the TPM sees it.
func TestBadPIN(t *testing.T) {
	sim := tpmtest.Simulator(t)
	for _, pin := range []string{"", "a\x00", "\x00a", strings.Repeat("1", 33)} {
		r := newRig(t, sim, withPIN(pin))
		_, err := r.Create(t.Context(), "key")
		wantError(t, err, keystore.ErrAuth)
		r.calls.Want(t)
		if len(pin) > 2 && strings.Contains(err.Error(), pin) {
			t.Errorf("%q shows the PIN", err)
		}
		r.Close()
	}
	r := newRig(t, sim, withPIN(strings.Repeat("ü", 16)))
	sign(t, create(t, r.Store, "key", tpm.KeyOptions{PIN: true}))
}

// TestBadFiles: what can be in the place of a key file.
func TestBadFiles(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "good", tpm.KeyOptions{})
	good, err := os.ReadFile(filepath.Join(r.config.Dir, "good.pem"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.config.Dir, "key.pem")
	changed := func(change func(der []byte)) []byte {
		block, rest := pem.Decode(good)
		change(block.Bytes)
		return append(pem.EncodeToMemory(block), rest...)
	}
	write := func(text []byte, mode fs.FileMode) func() error {
		return func() error { return errors.Join(os.WriteFile(path, text, mode), os.Chmod(path, mode)) }
	}
	for _, tt := range []struct {
		name string
		make func() error
		want error
	}{
		{"empty", write(nil, 0o600), keystore.ErrCorrupt},
		{"torn", write(good[:len(good)/3], 0o600), keystore.ErrCorrupt},
		{"torn at the end", write(good[:len(good)-10], 0o600), keystore.ErrCorrupt},
		{"no PEM", write([]byte("hello"), 0o600), keystore.ErrCorrupt},
		{"another PEM", write([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600), keystore.ErrCorrupt},
		{"huge", write(bytes.Repeat(good, 100), 0o600), keystore.ErrCorrupt},
		{"private part changed", write(changed(func(der []byte) { der[len(der)-5] ^= 1 }), 0o600), keystore.ErrCorrupt},
		{"public part changed", write(changed(func(der []byte) { der[bytes.Index(der, []byte{0, 32})+5] ^= 1 }), 0o600), keystore.ErrCorrupt},
		{"another parent's name", write(bytes.Replace(good, good[bytes.Index(good, []byte("NAME-----\n"))+20:][:8], []byte("AAAAAAAA"), 1), 0o600), keystore.ErrKeyLost},
		{"world-readable", write(good, 0o644), keystore.ErrUnavailable},
		{"group-readable", write(good, 0o640), keystore.ErrUnavailable},
		{"folder", func() error { return os.Mkdir(path, 0o700) }, keystore.ErrCorrupt},
		{"symbolic link", func() error { return os.Symlink("good.pem", path) }, keystore.ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.make(); err != nil {
				t.Fatal(err)
			}
			_, err := r.Open(t.Context(), "key")
			wantError(t, err, tt.want)
			_, err = r.Create(t.Context(), "key")
			wantError(t, err, keystore.ErrExists)
			if err := r.Delete(t.Context(), "key"); err != nil {
				t.Errorf("Delete: %v", err)
			}
			_, err = r.Open(t.Context(), "key")
			wantError(t, err, keystore.ErrNotFound)
		})
	}
	sign(t, open(t, r.Store, "good"))
}

// TestFolder: what can be wrong with the folder.
func TestFolder(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	info, err := os.Stat(r.config.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v, want 0700", info.Mode(), err)
	}
	create(t, r.Store, "key", tpm.KeyOptions{})
	entries, err := os.ReadDir(r.config.Dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v, want 1", len(entries), err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file has mode %v, %v, want 0600", info.Mode(), err)
	}

	t.Run("gone", func(t *testing.T) {
		away := r.config.Dir + "-away"
		if err := os.Rename(r.config.Dir, away); err != nil {
			t.Fatal(err)
		}
		_, err := r.Open(t.Context(), "key")
		wantError(t, err, keystore.ErrUnavailable, fs.ErrNotExist)
		_, err = r.Create(t.Context(), "key")
		wantError(t, err, keystore.ErrUnavailable, fs.ErrNotExist)
		wantError(t, r.Delete(t.Context(), "key"), keystore.ErrUnavailable, fs.ErrNotExist)
		_, err = r.List(t.Context())
		wantError(t, err, keystore.ErrUnavailable, fs.ErrNotExist)
		if err := os.Rename(away, r.config.Dir); err != nil {
			t.Fatal(err)
		}
		sign(t, open(t, r.Store, "key"))
	})
	t.Run("world-writable", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		_, err := tpm.Open(t.Context(), tpm.Config{Dial: sim.Dial, Dir: dir})
		wantError(t, err, keystore.ErrUnavailable)
	})
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := tpm.Open(t.Context(), tpm.Config{Dial: sim.Dial, Dir: file})
		wantError(t, err, keystore.ErrUnavailable)
	})
}

// TestDeviceFiles: what can be at Config.Device.
func TestDeviceFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), file, dir, "/dev/null"} {
		s, err := tpm.Open(t.Context(), tpm.Config{Device: path, Dir: filepath.Join(dir, "keys"), Exclusive: true})
		if err == nil {
			s.Close()
		}
		wantError(t, err, keystore.ErrUnavailable)
		t.Log(err)
	}
}

// TestOtherBlocks: what else is in a key file, such as a certificate, stays there.
func TestOtherBlocks(t *testing.T) {
	sim := tpmtest.Simulator(t)
	r := newRig(t, sim)
	create(t, r.Store, "key", tpm.KeyOptions{})
	path := filepath.Join(r.config.Dir, "key.pem")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text) // without the parent's Name, as of another program
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"Of": "the key"}, Bytes: []byte{1, 2, 3}})
	if err := os.WriteFile(path, append(pem.EncodeToMemory(block), certificate...), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		after, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(after, certificate) || !bytes.Contains(after, []byte("TPM2 PARENT NAME")) {
			t.Errorf("after %s: %v\n%s", what, err, after)
		}
	}
	sign(t, open(t, r.Store, "key"))
	check("Open")
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	check("Persist")
	if err := r.Unpersist(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	check("Unpersist")
}

// TestConfigString: no authorization value is shown.
func TestConfigString(t *testing.T) {
	config := tpm.Config{Dir: "/keys", OwnerAuth: []byte("secret"), EndorsementAuth: []byte("secret"), Device: "/dev/tpm0"}
	octets := fmt.Sprint([]byte("secret"))
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("opening", "config", config)
	for _, text := range []string{fmt.Sprint(config), fmt.Sprintf("%+v", &config), fmt.Sprintf("%#v", config), logged.String()} {
		if strings.Contains(text, "secret") || strings.Contains(text, octets[1:len(octets)-1]) || strings.Contains(text, "c2VjcmV0") || !strings.Contains(text, "/dev/tpm0") {
			t.Errorf("%s", text)
		}
	}
}
