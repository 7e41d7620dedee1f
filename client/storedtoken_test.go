// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/internal/privatefile/privatefiletest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestStoredTokenOverRestart(t *testing.T) {
	for name, test := range map[string]struct {
		dpop     client.DPoP
		method   transport.Method
		combined bool
		bound    string // to which key: "", "instance" or "own"
	}{
		"bearer":                    {client.DPoPOff, "", false, ""},
		"own key":                   {client.DPoPOwnKey, "", false, "own"},
		"instance key":              {client.DPoPInstanceKey, "", false, "instance"},
		"combined":                  {client.DPoPOff, transport.MethodDPoP, true, "instance"},
		"combined, own key":         {client.DPoPOwnKey, transport.MethodDPoP, true, "instance"},
		"combined by auto, own key": {client.DPoPOwnKey, "", true, "instance"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, transporttest.Policy{Combined: test.combined})
			configure := func(cfg *client.Config) { cfg.DPoP, cfg.Method = test.dpop, test.method }
			before := r.client(t, configure)
			token, stored := boundToken(t, before)
			instance, _ := keystore.Thumbprint(before.Key().Public())
			if stored.Issuer != r.Issuer || stored.ClientID != r.ClientID || stored.Thumbprint != instance {
				t.Errorf("bound to %v", stored)
			}
			switch bound := stored.DPoPThumbprint; test.bound {
			case "":
				if bound != "" {
					t.Errorf("a bearer token is bound to %s", bound)
				}
			case "instance":
				if bound != instance {
					t.Errorf("bound to %q, want the instance key", bound)
				}
			case "own":
				if want := proofKey(t, r.Requests(transporttest.Token)[0]); bound != want {
					t.Errorf("bound to %q, want the key of the proof", bound)
				}
			}
			if adopted, err := before.Adopt(stored); err != nil || adopted.AccessToken != token.AccessToken {
				t.Errorf("by the same Client: %v, access token kept: %t", err, err == nil && adopted.AccessToken == token.AccessToken)
			}

			file := filepath.Join(t.TempDir(), "token.json")
			if err := stored.Write(file); err != nil {
				t.Fatal(err)
			}
			read, err := client.ReadStoredToken(file)
			if err != nil {
				t.Fatal(err)
			}
			if read.Token.Expiry.IsZero() || !read.Token.Expiry.Equal(token.Expiry) {
				t.Errorf("expiry %v, want %v", read.Token.Expiry, token.Expiry)
			}
			total := r.total()
			after := r.client(t, configure)
			adopted, err := after.Adopt(read)
			if err != nil {
				t.Fatal(err)
			}
			if r.total() != total {
				t.Error("Adopt has sent something")
			}
			if adopted.RefreshToken != token.RefreshToken || adopted.RefreshToken == "" {
				t.Errorf("refresh token %q, want %q", adopted.RefreshToken, token.RefreshToken)
			}
			if kept, want := adopted.AccessToken == token.AccessToken && adopted.Valid(), test.bound != "own"; kept != want {
				t.Errorf("access token kept and valid: %t, want %t", kept, want)
			}
			if test.bound == "own" && (adopted.AccessToken != "" || adopted.Valid()) {
				t.Error("an access token of a lost DPoP key is left")
			}
			refreshed, err := after.Refresh(t.Context(), adopted.RefreshToken)
			if err != nil || !refreshed.Valid() || refreshed.RefreshToken == adopted.RefreshToken {
				t.Errorf("refresh: %v", err)
			}
		})
	}
}

func TestBindTokenTypeIsCaseInsensitive(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	for tokenType, bound := range map[string]bool{"dpop": true, "DPOP": true, "DPoP": true, "bearer": false, "": false, "N_A": false} {
		stored, err := r.client(t, ownKey).Bind(&oauth2.Token{AccessToken: "a", TokenType: tokenType})
		if err != nil || (stored.DPoPThumbprint != "") != bound {
			t.Errorf("token_type %q: bound to %q (%v), want bound = %t", tokenType, stored.DPoPThumbprint, err, bound)
		}
	}
}

func TestBindNil(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	if _, err := r.client(t).Bind(nil); err == nil {
		t.Error("no error")
	}
	if _, err := r.client(t).Adopt(client.StoredToken{}); err == nil {
		t.Error("Adopt of nothing: no error")
	}
}

func TestStoredTokenOfAnotherKeyIsRefusedC38(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	stored, err := c.Bind(&oauth2.Token{AccessToken: "ACCESS", RefreshToken: "REFRESH"})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := keystore.Thumbprint(newKey(t, "ES256").Public())
	for name, change := range map[string]func(*client.StoredToken){
		"another key":    func(s *client.StoredToken) { s.Thumbprint = other },
		"no key":         func(s *client.StoredToken) { s.Thumbprint = "" },
		"another issuer": func(s *client.StoredToken) { s.Issuer += "/" },
		"no issuer":      func(s *client.StoredToken) { s.Issuer = "" },
		"another client": func(s *client.StoredToken) { s.ClientID = "other" },
		"nothing":        func(s *client.StoredToken) { *s = client.StoredToken{Token: s.Token} },
	} {
		t.Run(name, func(t *testing.T) {
			changed := stored
			change(&changed)
			token, err := c.Adopt(changed)
			if !errors.Is(err, client.ErrOtherKey) || token != nil {
				t.Fatalf("token %t, error %v, want ErrOtherKey", token != nil, err)
			}
			if strings.Contains(err.Error(), "ACCESS") || strings.Contains(err.Error(), "REFRESH") {
				t.Errorf("error tells the token: %v", err)
			}
			text := strings.TrimPrefix(err.Error(), client.ErrOtherKey.Error())
			for _, pair := range [][2]string{{changed.Issuer, stored.Issuer}, {changed.ClientID, stored.ClientID}, {changed.Thumbprint, stored.Thumbprint}} {
				if differs := pair[0] != pair[1]; differs && name != "nothing" && !strings.Contains(text, fmt.Sprintf("%q", pair[0])) {
					t.Errorf("error does not say that %q differs: %v", pair[0], err)
				}
			}
		})
	}
	if n := r.total(); n != 0 {
		t.Errorf("%d requests sent, want 0", n)
	}
}

func TestStoredTokenFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token.json")
	one := client.StoredToken{Token: &oauth2.Token{AccessToken: "one", RefreshToken: "r", TokenType: "DPoP", Expiry: time.Unix(1e9, 0)}, Issuer: "i", ClientID: "c", Thumbprint: "t", DPoPThumbprint: "d"}
	if err := os.WriteFile(file, []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, stored := range []client.StoredToken{{Token: &oauth2.Token{}}, one} {
		if err := stored.Write(file); err != nil {
			t.Fatal(err)
		}
		privatefiletest.Check(t, file)
	}
	got, err := client.ReadStoredToken(file)
	if err != nil || got.Token.AccessToken != "one" || got.Token.RefreshToken != "r" || got.Token.TokenType != "DPoP" || !got.Token.Expiry.Equal(time.Unix(1e9, 0)) {
		t.Errorf("read %v, %v", got, err)
	}
	if got.Token = nil; got != (client.StoredToken{Issuer: "i", ClientID: "c", Thumbprint: "t", DPoPThumbprint: "d"}) {
		t.Errorf("read %v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files in the folder (%v), want 1", len(entries), err)
	}
	if err := one.Write(filepath.Join(dir, "missing", "token.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write into a folder that is not there: %v", err)
	}
	if err := one.Write(dir); err == nil {
		t.Error("Write over a folder: no error")
	}
}

func TestStoredTokenWriteRefusesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token.json")
	good := client.StoredToken{Token: &oauth2.Token{RefreshToken: "r"}, Issuer: "i"}
	if err := good.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := (client.StoredToken{Issuer: "i"}).Write(file); err == nil {
		t.Error("Write without a token: no error")
	}
	if got, err := client.ReadStoredToken(file); err != nil || got.Token.RefreshToken != "r" {
		t.Errorf("the good file is lost: %v", err)
	}
}

func TestReadStoredTokenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := (client.StoredToken{Token: &oauth2.Token{RefreshToken: "REFRESH"}, Issuer: "i"}).Write(good); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct {
		content string
		mode    fs.FileMode
	}{
		"torn":           {string(content[:len(content)-10]), 0o600},
		"empty":          {"", 0o600},
		"no object":      {"[]", 0o600},
		"null":           {"null", 0o600},
		"a plain token":  {`{"access_token":"REFRESH"}`, 0o600},
		"token is null":  {`{"token":null}`, 0o600},
		"token is text":  {`{"token":"REFRESH"}`, 0o600},
		"two objects":    {string(content) + string(content), 0o600},
		"huge":           {strings.Repeat(" ", 1<<20) + string(content), 0o600},
		"world-readable": {string(content), 0o604},
		"group-readable": {string(content), 0o640},
		"world-writable": {string(content), 0o602},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, []byte(file.content), 0o600); err != nil {
				t.Fatal(err)
			}
			privatefiletest.SetMode(t, path, file.mode)
			_, err := client.ReadStoredToken(path)
			if err == nil || strings.Contains(err.Error(), "REFRESH") || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one that names the file and not the token", err)
			}
		})
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir} {
		if _, err := client.ReadStoredToken(path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	if _, err := client.ReadStoredToken(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v, want fs.ErrNotExist", err)
	}
}

// TestStoredTokenKeepsWhatTheServerSaid beside the token: id_token and scope.
func TestStoredTokenKeepsWhatTheServerSaid(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.edit(transporttest.Token, func(answer map[string]any) {
		answer["scope"], answer["id_token"], answer["issued_token_type"] = "a b", "ID.TOKEN.x", "urn:ietf:params:oauth:token-type:jwt"
		answer["authorization_details"] = []any{map[string]any{"type": "meter", "n": 1}}
		answer["custom"] = "c"
	})
	c := r.client(t)
	token, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	for range 2 { // what was read can be written again
		stored, err := c.Bind(token)
		if err != nil {
			t.Fatal(err)
		}
		if err := stored.Write(file); err != nil {
			t.Fatal(err)
		}
		read, err := client.ReadStoredToken(file)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprintf("%v %+v %#v", read, read, read); strings.Contains(text, "ID.TOKEN") {
			t.Errorf("it prints its ID token: %s", text)
		}
		if token, err = c.Adopt(read); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{"scope": "a b", "id_token": "ID.TOKEN.x", "issued_token_type": "urn:ietf:params:oauth:token-type:jwt", "custom": nil} {
			if got := token.Extra(name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if got := fmt.Sprint(token.Extra("authorization_details")); got != "[map[n:1 type:meter]]" {
			t.Errorf("authorization_details is %s", got)
		}
	}
	if err := (client.StoredToken{Token: &oauth2.Token{RefreshToken: strings.Repeat("r", 300<<10)}}).Write(file); err == nil {
		t.Error("a token that could not be read again is written over one that can")
	}
	if read, err := client.ReadStoredToken(file); err != nil || read.Token.Extra("scope") != "a b" {
		t.Errorf("the good file is lost: %v", err)
	}
}

// boundToken gets a token, and binds it.
func boundToken(t *testing.T, c *client.Client) (*oauth2.Token, client.StoredToken) {
	t.Helper()
	token, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stored, err := c.Bind(token)
	if err != nil {
		t.Fatal(err)
	}
	return token, stored
}
