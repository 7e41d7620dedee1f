// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

func view(t *testing.T, r result) keyView {
	t.Helper()
	views := exampletest.Lines[keyView](t, r.stdout)
	if len(views) != 1 {
		t.Fatalf("printed %q", r.stdout)
	}
	return views[0]
}

func TestKey(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		dir := filepath.Join(t.TempDir(), "keys")
		key := func(verb string, more ...string) []string {
			return append([]string{"key", verb, "-store", store, "-keys", dir}, more...)
		}
		made := view(t, ok(t, key("create", "-name", "b", "-alg", "ES384", "-json")...))
		if thumbprint, err := keystore.Thumbprint(made.JWK.Key); err != nil || made.Thumbprint != thumbprint || !made.JWK.IsPublic() {
			t.Errorf("thumbprint %q of %+v: %v", made.Thumbprint, made.JWK, err)
		}
		if made.Name != "b" || made.Algorithm != "ES384" || made.Place != filepath.Join(dir, "b.pem") || made.Protection == "" {
			t.Errorf("made %+v", made)
		}
		if shown := view(t, ok(t, key("show", "-name", "b", "-json")...)); shown.Thumbprint != made.Thumbprint || shown.Place != made.Place {
			t.Errorf("shown %+v, made %+v", shown, made)
		}
		if r := ok(t, key("show", "-name", "b")...); !strings.Contains(r.stdout, `"thumbprint": "`+made.Thumbprint) || strings.Contains(r.stdout, `"d":`) {
			t.Errorf("shown %s", r.stdout)
		}
		ok(t, key("create", "-name", "a")...)
		if r := ok(t, key("list")...); r.stdout != "a\nb\n" {
			t.Errorf("listed %q", r.stdout)
		}
		if r := instancectl(t, key("create", "-name", "b")...); r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "already exists") {
			t.Errorf("made again: %+v", r)
		}
		ok(t, key("delete", "-name", "b")...)
		ok(t, key("delete", "-name", "b")...)
		if r := ok(t, key("list", "-json")...); r.stdout != `{"name":"a"}`+"\n" {
			t.Errorf("listed %q", r.stdout)
		}
		if r := instancectl(t, key("show", "-name", "b")...); r.status != 1 || !strings.Contains(r.stderr, "no such key") {
			t.Errorf("shown after its deletion: %+v", r)
		}
	})
}

// A key that would be gone when the command ends is not made.
func TestKeyTemporary(t *testing.T) {
	r := instancectl(t, "key", "create", "-store", "soft", "-name", "k", "-json")
	if r.status != 2 || r.stdout != "" || !strings.Contains(r.stderr, "-keys is missing") {
		t.Errorf("got %+v", r)
	}
}

func TestKeyInTPM(t *testing.T) {
	network, address := tpmtest.SWTPM(t, tpmtest.SWConfig{}).Addr()
	dir := t.TempDir()
	key := func(verb string, more ...string) []string {
		return append([]string{"key", verb, "-store", network + ":" + address, "-keys", dir, "-name", "k"}, more...)
	}
	pin := writeFile(t, "pin", "1234\n")
	made := view(t, ok(t, key("create", "-json", "-pin-file", pin, "-pcrs", "0,7")...))
	if made.Protection != "TPM, with a PIN, bound to what the device has booted (PCRs 0,7)" {
		t.Errorf("protection %q", made.Protection)
	}
	for range 2 { // doing it again changes nothing
		ok(t, key("persist", "0x81010005")...)
	}
	if shown := view(t, ok(t, key("show", "-json")...)); shown.Place != filepath.Join(dir, "k.pem")+", and in the TPM at 0x81010005" {
		t.Errorf("place %q", shown.Place)
	}
	if r := instancectl(t, key("persist", "0x81010006")...); r.status != 1 {
		t.Errorf("persisted at a second handle: %+v", r)
	}
	ok(t, key("unpersist")...)
	if shown := view(t, ok(t, key("show", "-json")...)); shown.Place != made.Place || shown.Thumbprint != made.Thumbprint {
		t.Errorf("shown %+v, made %+v", shown, made)
	}
	wrapped := writeFile(t, "wrapped.pem", "no PEM")
	if r := instancectl(t, "key", "import", "-store", network+":"+address, "-keys", dir, "-name", "i", wrapped); r.status != 1 || !strings.Contains(r.stderr, "PEM") {
		t.Errorf("import of garbage: %+v", r)
	}
}
