// SPDX-License-Identifier: Apache-2.0

package keystoretest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"github.com/instancekey/instancekey/keystore"
)

func checkStoreShowsNoSecret(t tb, newStore func() keystore.Store) {
	s := newStore()
	key := create(t, s, "key")
	_, existsErr := s.Create(t.Context(), "key")
	_, missingErr := s.Open(t.Context(), "missing")
	_, nameErr := s.Create(t.Context(), "a/b")
	for _, err := range []error{existsErr, missingErr, nameErr} {
		wantNoSecret(t, err, key)
	}
	wantNoSecret(t, s, key)
	wantNoSecret(t, map[string]any{"store": s, "key": key}, key)
}

func checkKeyShowsNoSecret(t tb, key keystore.Key) {
	wantNoSecret(t, key, key)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := key.Sign(cancelled, []byte("input"))
	wantNoSecret(t, err, key)
}

// wantNoSecret checks that value, however it is formatted, logged or
// marshalled, does not show key's private key.
func wantNoSecret(t tb, value any, key keystore.Key) {
	t.Helper()
	texts := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts["fmt "+verb] = fmt.Sprintf(verb, value)
	}
	if text, err := json.Marshal(value); err == nil { // refusing is fine
		texts["encoding/json"] = string(text)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("value", "value", value)
	texts["slog text"] = log.String()
	log.Reset()
	slog.New(slog.NewJSONHandler(&log, nil)).Info("value", "value", value)
	texts["slog JSON"] = log.String()

	for how, text := range texts {
		if holdsPrivateKey(text, key.Public()) {
			t.Errorf("a %T shows the private key through %s", value, how)
		}
	}
}

var (
	hexRun     = regexp.MustCompile(`[0-9A-Fa-f]{64,}`)
	base64Run  = regexp.MustCompile(`[A-Za-z0-9+/_-]{43,}`)
	decimalRun = regexp.MustCompile(`[0-9]{60,}`)                                             // a big.Int
	byteList   = regexp.MustCompile(`(?:(?:0x[0-9a-f]{1,2}|[0-9]{1,3})[, ]+){31,}[0-9a-fx]+`) // a []byte
)

// holdsPrivateKey reports whether any part of text, read as a number in any of
// the usual ways, is the private key of pub. There are no false alarms.
func holdsPrivateKey(text string, pub crypto.PublicKey) bool {
	if strings.Contains(text, "PRIVATE KEY-----") {
		return true
	}
	var found [][]byte
	for _, run := range hexRun.FindAllString(text, -1) {
		octets, _ := hex.DecodeString(run[:len(run)&^1])
		found = append(found, octets)
	}
	for _, run := range base64Run.FindAllString(text, -1) {
		run = strings.NewReplacer("+", "-", "/", "_").Replace(run)
		octets, _ := base64.RawURLEncoding.DecodeString(run[:len(run)/4*4])
		rest, _ := base64.RawURLEncoding.DecodeString(run)
		found = append(found, octets, rest)
	}
	for _, run := range decimalRun.FindAllString(text, -1) {
		n, _ := new(big.Int).SetString(run, 10)
		found = append(found, n.FillBytes(make([]byte, max(66, len(n.Bytes())))))
	}
	for _, list := range byteList.FindAllString(text, -1) {
		var octets []byte
		for _, number := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
			n, _ := strconv.ParseUint(number, 0, 8)
			octets = append(octets, byte(n))
		}
		found = append(found, octets)
	}
	for _, octets := range found {
		if containsPrivateKey(octets, pub) {
			return true
		}
	}
	return false
}

// containsPrivateKey tries every piece of octets that has the right length.
func containsPrivateKey(octets []byte, pub crypto.PublicKey) bool {
	size := ed25519.SeedSize
	if ec, ok := pub.(*ecdsa.PublicKey); ok {
		size = (ec.Curve.Params().BitSize + 7) / 8
	}
	for i := 0; i+size <= len(octets); i++ {
		piece := octets[i : i+size]
		switch pub := pub.(type) {
		case *ecdsa.PublicKey:
			if key, err := ecdsa.ParseRawPrivateKey(pub.Curve, piece); err == nil && key.PublicKey.Equal(pub) {
				return true
			}
		case ed25519.PublicKey:
			if ed25519.NewKeyFromSeed(piece).Public().(ed25519.PublicKey).Equal(pub) {
				return true
			}
		}
	}
	return false
}
