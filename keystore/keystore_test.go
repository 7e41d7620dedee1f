// SPDX-License-Identifier: Apache-2.0

package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"a", "Z", "0", "_", "-", "a.", "a..", "a.pem", "key-1_2.3", strings.Repeat("a", 128),
	} {
		if err := keystore.CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v, want nil", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", ".a", "...", "a/b", "/", "../a", `a\b`, `\`, "a\x00", "\x00", "a\n", "\na", "a\r\n", "a b", " ",
		"a:", "a*", "a?", "~", "$HOME", "a%2fb", "å", "ａ", "а", "a\u202e", "a\xff", "\x7f", "a\u0000",
		strings.Repeat("a", 129), strings.Repeat("a", 1<<20), strings.Repeat("\x00", 1<<20),
	} {
		err := keystore.CheckName(name)
		if err == nil {
			t.Errorf("CheckName(%.40q) = nil, want an error", name)
			continue
		}
		if text := err.Error(); len(text) > 500 || !strings.HasPrefix(text, "keystore: ") {
			t.Errorf("CheckName(%.40q): %d characters of error text: %.500s", name, len(text), text)
		}
	}
}

// script is a Store that gives prepared answers, one after the other, and fails
// the test when asked for more.
type script struct {
	keystore.Store
	t     *testing.T
	steps []step
	calls []string
}

type step struct {
	method string
	key    keystore.Key
	err    error
}

func (s *script) next(method string) (keystore.Key, error) {
	s.calls = append(s.calls, method)
	if len(s.steps) == 0 || s.steps[0].method != method {
		s.t.Errorf("unexpected call of %s", method)
		return nil, errors.New("unexpected call")
	}
	step := s.steps[0]
	s.steps = s.steps[1:]
	return step.key, step.err
}

func (s *script) Open(context.Context, string) (keystore.Key, error)   { return s.next("Open") }
func (s *script) Create(context.Context, string) (keystore.Key, error) { return s.next("Create") }

func TestOpenOrCreate(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("store: key %q: %w", "key", err) }
	key, err := softkey.New().Create(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	errDisk := errors.New("disk on fire")
	tests := []struct {
		name    string
		steps   []step
		wantKey bool
		wantErr error
	}{
		{"there is one", []step{{"Open", key, nil}}, true, nil},
		{"there is none", []step{{"Open", nil, wrap(keystore.ErrNotFound)}, {"Create", key, nil}}, true, nil},
		{"somebody was faster", []step{
			{"Open", nil, wrap(keystore.ErrNotFound)},
			{"Create", nil, wrap(keystore.ErrExists)},
			{"Open", key, nil},
		}, true, nil},
		{"somebody was faster and his key is corrupt", []step{
			{"Open", nil, wrap(keystore.ErrNotFound)},
			{"Create", nil, wrap(keystore.ErrExists)},
			{"Open", nil, wrap(keystore.ErrCorrupt)},
		}, false, keystore.ErrCorrupt},
		{"somebody was faster and deleted it", []step{
			{"Open", nil, wrap(keystore.ErrNotFound)},
			{"Create", nil, wrap(keystore.ErrExists)},
			{"Open", nil, wrap(keystore.ErrNotFound)},
		}, false, keystore.ErrNotFound},
		{"Create fails", []step{
			{"Open", nil, wrap(keystore.ErrNotFound)},
			{"Create", nil, wrap(keystore.ErrLockedOut)},
		}, false, keystore.ErrLockedOut},
	}
	// Nothing but ErrNotFound is answered with a new key.
	for _, sentinel := range []error{
		keystore.ErrKeyLost, keystore.ErrCorrupt, keystore.ErrLockedOut, keystore.ErrAuth, keystore.ErrPolicy,
		keystore.ErrUnavailable, keystore.ErrClosed, context.Canceled, errDisk,
	} {
		tests = append(tests, struct {
			name    string
			steps   []step
			wantKey bool
			wantErr error
		}{sentinel.Error(), []step{{"Open", nil, wrap(sentinel)}}, false, sentinel})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{t: t, steps: tt.steps}
			got, err := keystore.OpenOrCreate(t.Context(), s, "key")
			if (got == key) != tt.wantKey || !errors.Is(err, tt.wantErr) {
				t.Errorf("OpenOrCreate = %v, %v, want a key: %v, error %v", got, err, tt.wantKey, tt.wantErr)
			}
			if len(s.steps) != 0 {
				t.Errorf("only %q were called", s.calls)
			}
		})
	}
}

// TestSentinelsAreDistinct: an error means one thing.
func TestSentinelsAreDistinct(t *testing.T) {
	sentinels := []error{
		keystore.ErrNotFound, keystore.ErrExists, keystore.ErrKeyLost, keystore.ErrCorrupt, keystore.ErrLockedOut,
		keystore.ErrAuth, keystore.ErrPolicy, keystore.ErrUnavailable, keystore.ErrClosed,
	}
	texts := make(map[string]bool)
	for i, a := range sentinels {
		for j, b := range sentinels {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v) = %v", a, b, i != j)
			}
		}
		texts[a.Error()] = true
	}
	if len(texts) != 9 {
		t.Errorf("%d texts for 9 sentinels", len(texts))
	}
}
