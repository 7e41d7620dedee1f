// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/examples/authserver"
)

// halfHash is the req_hash of a message for an ES256 key.
func halfHash(octets []byte) string {
	sum := sha256.Sum256(octets)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// TestReqHash: which message the token request for a code vouches for, and
// whether that is good enough without and with RequireReqHash.
func TestReqHash(t *testing.T) {
	ofPushed := func(pushed, _ string) any { return halfHash([]byte(pushed)) }
	for _, tc := range []struct {
		name           string
		claim          func(pushed, own string) any // nil: none
		plain, require string                       // reason of the refusal, "": granted
	}{
		{"the pushed request", ofPushed, "", ""},
		{"none", nil, "", "nothing vouches"},
		{"its own body", func(_, own string) any { return halfHash([]byte(own)) }, "", "changed on the way"},
		{"another message", func(pushed, _ string) any { return halfHash([]byte(pushed + "&")) }, "changed on the way", "changed on the way"},
		{"nothing at all", func(_, _ string) any { return halfHash(nil) }, "changed on the way", "changed on the way"},
		{"the whole hash", func(pushed, _ string) any {
			sum := sha256.Sum256([]byte(pushed))
			return base64.RawURLEncoding.EncodeToString(sum[:])
		}, "changed on the way", "changed on the way"},
		{"with padding", func(pushed, _ string) any { return halfHash([]byte(pushed)) + "==" }, "changed on the way", "changed on the way"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for require, reason := range map[bool]string{false: tc.plain, true: tc.require} {
				f := newCodeFixture(t, func(cfg *authserver.Config) { cfg.RequireReqHash = require })
				push := f.push()
				code := f.code(f.pushed(push))
				c := f.redeem(code)
				if tc.claim != nil {
					c.pop.claims["req_hash"] = tc.claim(push.form.Encode(), c.form.Encode())
				}
				if reason == "" {
					f.grant(c)
					continue
				}
				f.wantRefusal(f.send(c), badRequest, attestation, "req_hash", reason)
				// What somebody may have changed is not given a second chance.
				c = f.redeem(code)
				c.pop.claims["req_hash"] = ofPushed(push.form.Encode(), "")
				f.wantRefusal(f.send(c), badRequest, "invalid_grant", "RFC 6749 4.1.3", "used already")
			}
		})
	}
}

// TestReqHashOfOwnBody: a token request that vouches for itself.
func TestReqHashOfOwnBody(t *testing.T) {
	f := newFixture(t, nil)
	c := f.pop()
	c.pop.claims["req_hash"] = halfHash([]byte(c.form.Encode()))
	f.grant(c)
	c = f.pop()
	c.pop.claims["req_hash"] = halfHash([]byte(c.form.Encode()))
	c.form.Set("scope", "read write")
	f.wantRefusal(f.send(c), badRequest, attestation, "req_hash", "changed on the way")
	c = f.pop()
	c.pop.claims["req_hash"] = 5
	f.wantRefusal(f.send(c), badRequest, attestation, "7.2(2)", "malformed")

	// The hash function is that of the PoP's alg.
	for name, status := range map[string]int{"SHA-256": http.StatusBadRequest, "SHA-384": http.StatusOK} {
		c = f.pop()
		c.pop.key = newKey(t, elliptic.P384())
		c.pop.header["alg"] = "ES384"
		c.attestation.claims["cnf"] = object{"jwk": publicJWK(t, c.pop.key)}
		c.pop.claims["req_hash"] = halfHash([]byte(c.form.Encode()))
		if name == "SHA-384" {
			sum := sha512.Sum384([]byte(c.form.Encode()))
			c.pop.claims["req_hash"] = base64.RawURLEncoding.EncodeToString(sum[:24])
		}
		if w := f.send(c); w.Code != status {
			t.Errorf("ES384 with %s: status %d, want %d", name, w.Code, status)
		}
	}
}
