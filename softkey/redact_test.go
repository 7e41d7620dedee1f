// SPDX-License-Identifier: Apache-2.0

package softkey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
)

// secretTexts returns the private key of a file in the forms in which it might
// be printed.
func secretTexts(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var secret []byte
	var texts []string
	switch private := private.(type) {
	case *ecdsa.PrivateKey:
		if secret, err = private.Bytes(); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, new(big.Int).SetBytes(secret).String())
	case ed25519.PrivateKey:
		secret = private.Seed()
	}
	return append(texts,
		strings.Split(string(text), "\n")[1],
		fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret),
		strings.Trim(fmt.Sprint(secret), "[]"),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), "}"),
		base64.StdEncoding.EncodeToString(secret)[:42], base64.RawURLEncoding.EncodeToString(secret),
	)
}

// TestShowsNoSecret looks for the very key in whatever fmt, slog and json make
// of a Store and of a Key, also inside of other values and as copies.
func TestShowsNoSecret(t *testing.T) {
	for _, algorithm := range []string{"ES256", "ES384", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			dir := newDir(t)
			folder := openDir(t, dir)
			key, err := folder.CreateKey(t.Context(), "key", softkey.KeyOptions{Algorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			opened, err := folder.Open(t.Context(), "key")
			if err != nil {
				t.Fatal(err)
			}
			secrets := secretTexts(t, filepath.Join(dir, "key.pem"))

			type holder struct {
				Store *softkey.Store
				Copy  softkey.Store
				Key   keystore.Key
				key   keystore.Key
			}
			values := []any{folder, *folder, key, opened, []any{key, opened}, holder{folder, *folder, key, opened}, &holder{folder, *folder, key, opened}}
			var shown bytes.Buffer
			text, structured := slog.New(slog.NewTextHandler(&shown, nil)), slog.New(slog.NewJSONHandler(&shown, nil))
			for _, value := range values {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
					fmt.Fprintf(&shown, verb+"\n", value)
				}
				text.Info("value", "value", value)
				structured.Info("value", "value", value)
				if out, err := json.Marshal(value); err == nil {
					shown.Write(out)
				}
			}
			for i, secret := range secrets {
				if strings.Contains(shown.String(), secret) {
					t.Errorf("the private key is shown (form %d)", i)
				}
			}
			// What is shown instead says which key and where.
			for _, want := range []string{algorithm + " key " + thumbprint(t, key), "softkey.Store in " + dir} {
				if !strings.Contains(shown.String(), want) {
					t.Errorf("%q is not shown", want)
				}
			}
		})
	}
}

// TestMemoryShowsNoSecret: keystoretest finds keys that it can compute the
// public key of; here is a Store that holds one of each kind.
func TestMemoryShowsNoSecret(t *testing.T) {
	s := softkey.New()
	for _, algorithm := range []string{"ES256", "ES384", "EdDSA"} {
		if _, err := s.CreateKey(t.Context(), algorithm, softkey.KeyOptions{Algorithm: algorithm}); err != nil {
			t.Fatal(err)
		}
	}
	const want = "softkey.Store in memory"
	if got := fmt.Sprintf("%v|%+v|%#v|%s", s, s, s, s); got != strings.Join([]string{want, want, want, want}, "|") {
		t.Errorf("fmt: %s", got)
	}
	// A copy, which nobody should make, shows addresses.
	if got := fmt.Sprintf("%+v", *s); len(got) > 40 {
		t.Errorf("fmt of a copy: %s", got)
	}
	if got, err := json.Marshal(s); string(got) != `"`+want+`"` {
		t.Errorf("json: %s, %v", got, err)
	}
}
