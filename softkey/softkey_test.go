// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/keystore/keystoretest"
	"github.com/instancekey/instancekey/softkey"
)

// newDir returns a folder that is not there yet.
func newDir(t testing.TB) string { return filepath.Join(t.TempDir(), "keys") }

func openDir(t testing.TB, dir string) *softkey.Store {
	t.Helper()
	s, err := softkey.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eachStore runs a test on a Store of either kind.
func eachStore(t *testing.T, test func(t *testing.T, s *softkey.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, softkey.New()) })
	t.Run("folder", func(t *testing.T) { test(t, openDir(t, newDir(t))) })
}

func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		keystoretest.Run(t, func(*testing.T) keystore.Store { return softkey.New() })
	})
	t.Run("folder", func(t *testing.T) {
		keystoretest.RunPersistent(t, func(t *testing.T) func(*testing.T) keystore.Store {
			dir := newDir(t)
			return func(t *testing.T) keystore.Store { return openDir(t, dir) }
		})
	})
}

func TestCreateKey(t *testing.T) {
	eachStore(t, func(t *testing.T, s *softkey.Store) {
		for name, tt := range map[string]struct{ asked, want string }{
			"default": {"", "ES256"}, "es256": {"ES256", "ES256"}, "es384": {"ES384", "ES384"}, "eddsa": {"EdDSA", "EdDSA"},
		} {
			t.Run(name, func(t *testing.T) {
				key, err := s.CreateKey(t.Context(), name, softkey.KeyOptions{Algorithm: tt.asked})
				if err != nil {
					t.Fatal(err)
				}
				if key.Algorithm() != tt.want {
					t.Errorf("Algorithm = %s, want %s", key.Algorithm(), tt.want)
				}
				keystoretest.RunKey(t, key)
				opened, err := s.Open(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if opened.Algorithm() != tt.want || thumbprint(t, opened) != thumbprint(t, key) {
					t.Errorf("Open = %v, want %v", opened, key)
				}
			})
		}
	})
}

func thumbprint(t testing.TB, key keystore.Key) string {
	t.Helper()
	jkt, err := keystore.Thumbprint(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return jkt
}

func TestCreateKeyRefusesAlgorithm(t *testing.T) {
	eachStore(t, func(t *testing.T, s *softkey.Store) {
		for _, algorithm := range []string{"es256", "RS256", "none", "HS256", "P-256", " ", strings.Repeat("x", 1<<20)} {
			key, err := s.CreateKey(t.Context(), "key", softkey.KeyOptions{Algorithm: algorithm})
			if err == nil || key != nil || !strings.HasPrefix(err.Error(), "softkey: ") || len(err.Error()) > 200 {
				t.Errorf("CreateKey(%.20q) = %v, %.200v", algorithm, key, err)
			}
		}
		if names, err := s.List(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("List = %q, %v, want nothing", names, err)
		}
	})
}

// TestCancelled: nothing happens under a context that has ended.
func TestCancelled(t *testing.T) {
	eachStore(t, func(t *testing.T, s *softkey.Store) {
		if _, err := s.Create(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, createErr := s.Create(ctx, "other")
		_, openErr := s.Open(ctx, "key")
		_, listErr := s.List(ctx)
		for method, err := range map[string]error{
			"Create": createErr, "Open": openErr, "List": listErr, "Delete": s.Delete(ctx, "key"),
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s = %v, want context.Canceled", method, err)
			}
		}
		if names, err := s.List(t.Context()); err != nil || len(names) != 1 || names[0] != "key" {
			t.Errorf("List = %q, %v, want key alone", names, err)
		}
	})
}

// TestDeletedKeySigns: who has a Key keeps it.
func TestDeletedKeySigns(t *testing.T) {
	eachStore(t, func(t *testing.T, s *softkey.Store) {
		key, err := s.Create(t.Context(), "key")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		if _, err := key.Sign(t.Context(), []byte("input")); err != nil {
			t.Errorf("Sign: %v", err)
		}
	})
}

// TestMemoryIsNotShared: each New begins empty.
func TestMemoryIsNotShared(t *testing.T) {
	if _, err := softkey.New().Create(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
	if _, err := softkey.New().Open(t.Context(), "key"); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("Open = %v, want ErrNotFound", err)
	}
}
