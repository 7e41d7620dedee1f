// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
)

// An attempt is a request for an attestation that is right in every respect
// until a test spoils it.
type attempt struct {
	*world
	k         *key
	chain     [][]byte
	challenge string
	pcrs      []int
	binding   []byte
	proof     *proof

	// Who signs the request, and the key that it is for.
	alg    jose.SignatureAlgorithm
	signer any
	jwk    any
}

func (w *world) attempt(k *key, chain [][]byte) *attempt {
	w.t.Helper()
	a := &attempt{world: w, k: k, chain: chain, alg: k.alg(), signer: k, jwk: k.Public()}
	a.challenge, a.pcrs = w.wants()
	a.binding = bindingOf(a.challenge, k.thumbprint())
	a.proof = w.d.prove(k, a.challenge, chain, a.pcrs)
	return a
}

// signWith has a key in software sign the request; the evidence stays.
func (a *attempt) signWith(key *ecdsa.PrivateKey) {
	a.t.Helper()
	thumbprint, err := keystore.Thumbprint(&key.PublicKey)
	if err != nil {
		a.t.Fatal(err)
	}
	a.alg = map[elliptic.Curve]jose.SignatureAlgorithm{elliptic.P256(): jose.ES256, elliptic.P384(): jose.ES384}[key.Curve]
	a.signer, a.jwk = key, jose.JSONWebKey{Key: &key.PublicKey}
	a.binding = bindingOf(a.challenge, thumbprint)
}

// forge replaces the evidence for the key by a forgery.
func (a *attempt) forge(f *forger, g *forgery) {
	a.t.Helper()
	if g.key == nil {
		g.key = newKey(a.t, elliptic.P256())
	}
	a.signWith(g.key)
	a.proof.statement = f.statement(g, a.binding)
}

func (a *attempt) request() *request {
	a.t.Helper()
	r := a.world.request()
	r.alg, r.key, r.jwk = a.alg, a.signer, a.jwk
	r.claims["challenge"] = a.challenge
	r.claims["evidence"] = a.proof.encode(a.t)
	return r
}

// A refusal is what a spoilt attempt must get.
type refusal struct {
	name, code, reason string
	spoil              func(*attempt)
}

// run makes one attempt for each case and checks that each is refused for the
// right reason. An attempt that nobody spoils must succeed before and after.
func (w *world) run(t *testing.T, k *key, chain [][]byte, cases []refusal, want int) {
	t.Helper()
	outer := w.t
	defer func() { w.t, w.d.t = outer, outer }()
	refused := 0
	seen := map[string]bool{}
	good := func(when string) {
		w.t, w.d.t = t, t
		if r := w.send(w.attempt(k, chain).request()); r.Code != http.StatusOK {
			t.Fatalf("a good attempt %s: %d %s, logged %v", when, r.Code, r.Body, w.lastRecord())
		}
	}
	good("before")
	for _, tc := range cases {
		if seen[tc.name] {
			t.Errorf("two cases have the name %q", tc.name)
		}
		seen[tc.name] = true
		t.Run(tc.name, func(t *testing.T) {
			w.t, w.d.t = t, t
			a := w.attempt(k, chain)
			tc.spoil(a)
			status := http.StatusBadRequest
			if tc.code == "policy_violation" {
				status = http.StatusForbidden
			}
			w.wantRefusal(w.send(a.request()), status, tc.code, tc.reason)
			if !t.Failed() {
				refused++
			}
		})
	}
	good("after")
	if refused != want || len(cases) != want {
		t.Errorf("%d of %d attempts refused for the right reason, want %d", refused, len(cases), want)
	}
}
