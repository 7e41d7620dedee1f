// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestNewTakesKeyOrStore(t *testing.T) {
	key := newKey(t, "ES256")
	for name, test := range map[string]struct {
		edit func(*client.Config)
		ok   bool
	}{
		"key":                  {func(cfg *client.Config) { cfg.Key, cfg.Store = key, nil }, true},
		"store":                {func(cfg *client.Config) {}, true},
		"store and name":       {func(cfg *client.Config) { cfg.KeyName = "name" }, true},
		"key and store":        {func(cfg *client.Config) { cfg.Key = key }, false},
		"key and name":         {func(cfg *client.Config) { cfg.Key, cfg.Store, cfg.KeyName = key, nil, "name" }, false},
		"key, store and name":  {func(cfg *client.Config) { cfg.Key, cfg.KeyName = key, "name" }, false},
		"key that cannot sign": {func(cfg *client.Config) { cfg.Key, cfg.Store = macKey{key}, nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			test.edit(&cfg)
			c, err := client.New(t.Context(), cfg)
			if (err == nil) != test.ok {
				t.Fatalf("error %v, want ok = %t", err, test.ok)
			}
			if test.ok {
				c.Close()
			} else if r.store.opens.Load()+r.store.creates.Load() != 0 {
				t.Error("the store was used")
			}
		})
	}
}

// macKey claims to sign with a MAC.
type macKey struct{ keystore.Key }

func (macKey) Algorithm() string { return "HS256" }

func TestNewWithPushAttesterNeverCreatesKey(t *testing.T) {
	for name, attester := range map[string]client.Attester{
		"value":   client.PushAttester{Attestation: "a.b.c"},
		"pointer": &client.PushAttester{File: "attestation.jwt"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			cfg := r.config()
			cfg.Attester, cfg.KeyName = attester, "provisioned"
			_, err := client.New(t.Context(), cfg)
			if !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("error %v, want ErrNotFound", err)
			}
			if n := r.store.creates.Load(); n != 0 {
				t.Errorf("%d keys created, want 0", n)
			}
			if _, err := r.store.Create(t.Context(), "provisioned"); err != nil {
				t.Fatal(err)
			}
			c, err := client.New(t.Context(), cfg)
			if err != nil {
				t.Fatalf("with the key there: %v", err)
			}
			c.Close()
		})
	}
}

func TestNewNeverReplacesKey(t *testing.T) {
	for name, sentinel := range map[string]error{
		"ErrKeyLost":     keystore.ErrKeyLost,
		"ErrCorrupt":     keystore.ErrCorrupt,
		"ErrUnavailable": keystore.ErrUnavailable,
		"ErrLockedOut":   keystore.ErrLockedOut,
		"ErrAuth":        keystore.ErrAuth,
		"ErrPolicy":      keystore.ErrPolicy,
		"ErrClosed":      keystore.ErrClosed,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{})
			r.store.fail = sentinel
			_, err := client.New(t.Context(), r.config())
			if !errors.Is(err, sentinel) {
				t.Errorf("error %v, want %v", err, sentinel)
			}
			if opens, creates := r.store.opens.Load(), r.store.creates.Load(); opens != 1 || creates != 0 {
				t.Errorf("%d opens, %d creates, want 1 and 0", opens, creates)
			}
		})
	}
}

func TestNewDerivesKeyNames(t *testing.T) {
	store := softkey.New()
	names := make(map[string]string) // name: what for
	for _, pair := range [][2]string{
		{"https://as.example.com", "client"},
		{"https://as.example.com/", "client"},
		{"https://as.example.com/c", "lient"},
		{"https://as.example.com:443", "client"},
		{"https://other.example.com", "client"},
		{"https://as.example.com", "other"},
		{"https://as.example.com", "https://client.example.com/app?x=y#z"},
		{"https://as.example.com", "a client / with ../ and \x00 in it"},
		{"https://as.example.com", strings.Repeat("long", 5000)},
	} {
		before, err := store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time finds the key
			r := newRig(t, transporttest.Policy{})
			r.client(t, func(cfg *client.Config) { cfg.Issuer, cfg.ClientID, cfg.Store = pair[0], pair[1], store })
		}
		after, err := store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(after) != len(before)+1 {
			t.Fatalf("issuer %q and client %.40q have made %d keys, want 1", pair[0], pair[1], len(after)-len(before))
		}
		for _, name := range after {
			if err := keystore.CheckName(name); err != nil {
				t.Error(err)
			}
			names[name] = pair[0]
		}
	}
	if len(names) != 9 {
		t.Errorf("%d key names, want 9", len(names))
	}
}
