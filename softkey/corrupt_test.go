// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

func TestCorruptFiles(t *testing.T) {
	good := read(t, "testdata", "openssl-P-256.pem")
	for _, tt := range []struct {
		name string
		text []byte
	}{
		{"empty", nil},
		{"blank", []byte("\n\n")},
		{"garbage", []byte("garbage")},
		{"zeros", make([]byte, 241)},
		{"header alone", []byte("-----BEGIN PRIVATE KEY-----\n")},
		{"empty block", []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")},
		{"block of garbage", []byte("-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n")},
		{"key and garbage", append(bytes.Clone(good), "garbage"...)},
		{"two keys", append(bytes.Clone(good), good...)},
		{"key and a megabyte of blanks", append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 1<<20)...)},
		{"wrong label", bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("EC PRIVATE KEY"))},
		{"SEC 1", read(t, "testdata", "sec1.pem")},
		{"encrypted", read(t, "testdata", "encrypted.pem")},
		{"public key", read(t, "testdata", "public.pem")},
		{"RSA", read(t, "testdata", "rsa.pem")},
		{"X25519", read(t, "testdata", "x25519.pem")},
		{"secp256k1", read(t, "testdata", "secp256k1.pem")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := newDir(t)
			write(t, dir, "key.pem", tt.text)
			s := openDir(t, dir)
			wantCorrupt(t, s, dir)
			if got := read(t, dir, "key.pem"); !bytes.Equal(got, tt.text) {
				t.Errorf("the file was changed")
			}
		})
	}
}

// wantCorrupt checks how a name is treated whose file holds no key.
func wantCorrupt(t *testing.T, s *softkey.Store, dir string) {
	t.Helper()
	_, err := s.Open(t.Context(), "key")
	if !errors.Is(err, keystore.ErrCorrupt) || errors.Is(err, keystore.ErrNotFound) {
		t.Fatalf("Open = %v, want ErrCorrupt", err)
	}
	if text := err.Error(); !strings.HasPrefix(text, "softkey: ") || !strings.Contains(text, filepath.Join(dir, "key.pem")) || len(text) > 600 {
		t.Errorf("Open = %v", err)
	}
	if _, err := keystore.OpenOrCreate(t.Context(), s, "key"); !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("OpenOrCreate = %v, want ErrCorrupt", err)
	}
	if _, err := s.Create(t.Context(), "key"); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("Create = %v, want ErrExists", err)
	}
	if names, err := s.List(t.Context()); err != nil || !slices.Equal(names, []string{"key"}) {
		t.Errorf("List = %q, %v, want key", names, err)
	}
}

// TestHugeFile: Open reads no more of a file than a key can have.
func TestHugeFile(t *testing.T) {
	dir := newDir(t)
	write(t, dir, "key.pem", nil)
	s := openDir(t, dir)
	if err := os.Truncate(filepath.Join(dir, "key.pem"), 64<<20); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.Open(t.Context(), "key")
	runtime.ReadMemStats(&after)
	if !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("Open = %v, want ErrCorrupt", err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
		t.Errorf("Open allocated %d bytes", allocated)
	}
}

// TestTornFile: a file that ends early is never a key.
func TestTornFile(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	good := bytes.TrimSpace(read(t, "testdata", "openssl-P-256.pem"))
	for size := range good {
		write(t, dir, "key.pem", good[:size])
		if key, err := s.Open(t.Context(), "key"); !errors.Is(err, keystore.ErrCorrupt) {
			t.Errorf("Open of the first %d bytes = %v, %v, want ErrCorrupt", size, key, err)
		}
	}
	write(t, dir, "key.pem", good)
	if _, err := s.Open(t.Context(), "key"); err != nil {
		t.Errorf("Open of all but the last line feed: %v", err)
	}
}

// TestDamagedFile: with one changed character the file is the same key or none,
// never another one.
func TestDamagedFile(t *testing.T) {
	dir := newDir(t)
	s := openDir(t, dir)
	good := read(t, "testdata", "openssl-P-256.pem")
	write(t, dir, "key.pem", good)
	key, err := s.Open(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	corrupt := 0
	for i := range good {
		for _, other := range []byte("A/\n\x00") {
			damaged := bytes.Clone(good)
			damaged[i] = other
			write(t, dir, "key.pem", damaged)
			opened, err := s.Open(t.Context(), "key")
			switch {
			case errors.Is(err, keystore.ErrCorrupt):
				corrupt++
			case err != nil:
				t.Errorf("byte %d = %q: %v, want ErrCorrupt", i, other, err)
			case thumbprint(t, opened) != thumbprint(t, key):
				t.Errorf("byte %d = %q: another key", i, other)
			}
		}
	}
	// The rest differ in line ends, or not at all.
	if corrupt < 900 {
		t.Errorf("only %d of %d damaged files are corrupt", corrupt, 4*len(good))
	}
}

// FuzzKeyFile: no file makes Open panic, and what it takes for a key signs.
func FuzzKeyFile(f *testing.F) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	seeds := 0
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".pem" {
			f.Add(read(f, "testdata", entry.Name()))
			seeds++
		}
	}
	if seeds != 10 {
		f.Fatalf("%d seeds, want 10", seeds)
	}
	dir := newDir(f)
	s := openDir(f, dir)
	f.Fuzz(func(t *testing.T, text []byte) {
		write(t, dir, "key.pem", text)
		key, err := s.Open(t.Context(), "key")
		if err != nil {
			if !errors.Is(err, keystore.ErrCorrupt) {
				t.Errorf("Open = %v, want ErrCorrupt", err)
			}
			return
		}
		if _, err := key.Sign(t.Context(), []byte("input")); err != nil {
			t.Errorf("Sign: %v", err)
		}
	})
}
