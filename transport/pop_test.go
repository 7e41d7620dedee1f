// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestPoP looks at what the strict server has only accepted.
func TestPoP(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	f.token(http.StatusOK)
	r := f.server.Requests(transporttest.Token)[0]

	t.Run("C10_typ", func(t *testing.T) {
		if typ := r.PoP.Header["typ"]; typ != "oauth-client-attestation-pop+jwt" {
			t.Errorf("typ %v", typ)
		}
	})
	t.Run("C12_no_key_in_the_header", func(t *testing.T) {
		if names := slices.Sorted(maps.Keys(r.PoP.Header)); !slices.Equal(names, []string{"alg", "typ"}) {
			t.Errorf("header members %q, want alg and typ alone", names)
		}
	})
	t.Run("C13_aud_is_the_issuer_as_a_string", func(t *testing.T) {
		if aud := r.PoP.Claims["aud"]; aud != f.server.Issuer {
			t.Errorf("aud %#v, want %q", aud, f.server.Issuer)
		}
	})
	t.Run("C15_jti", func(t *testing.T) {
		if !regexp.MustCompile(`^[A-Za-z0-9._~-]{22,}$`).MatchString(r.PoP.ID) {
			t.Errorf("jti %q: want 128 random bits in plain characters", r.PoP.ID)
		}
	})
	t.Run("C16_iat_in_whole_seconds", func(t *testing.T) {
		if r.PoP.IssuedAt != f.clock.Now().Unix() || r.PoP.Claims["iat"] != float64(r.PoP.IssuedAt) {
			t.Errorf("iat %v, want %d", r.PoP.Claims["iat"], f.clock.Now().Unix())
		}
	})
	t.Run("C17_challenge", func(t *testing.T) {
		if _, ok := r.PoP.Claims["challenge"].(string); !ok {
			t.Errorf("challenge %#v", r.PoP.Claims["challenge"])
		}
	})
	t.Run("C18_no_other_claims", func(t *testing.T) {
		if names := slices.Sorted(maps.Keys(r.PoP.Claims)); !slices.Equal(names, []string{"aud", "challenge", "iat", "jti"}) {
			t.Errorf("claims %q", names)
		}
	})
	t.Run("C3_C19_one_field_each", func(t *testing.T) {
		for _, name := range []string{transport.HeaderAttestation, transport.HeaderAttestationPoP} {
			if values := r.Header.Values(name); len(values) != 1 || !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+/-]*$`).MatchString(values[0]) {
				t.Errorf("%s: %d fields, or not both a token68 and a Token of RFC 9651", name, len(values))
			}
		}
	})
}

func TestC17NoChallengeNoClaim(t *testing.T) {
	f := newFixture(t, transporttest.Policy{Kind: transporttest.NoChallenges, NoEndpoint: true})
	f.token(http.StatusOK)
	if value, ok := f.server.Requests(transporttest.Token)[0].PoP.Claims["challenge"]; ok {
		t.Errorf("challenge %#v, want no such claim", value)
	}
}

// TestC4EachRequestHasItsOwnPoP: one attestation, many PoPs.
func TestC4EachRequestHasItsOwnPoP(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	const n = 5
	seen := make(map[string]bool)
	for range n {
		f.clock.advance(time.Second)
		f.token(http.StatusOK)
	}
	requests := f.server.Requests(transporttest.Token)
	for _, r := range requests {
		seen[r.PoP.ID] = true
		if r.Attestation() != requests[0].Attestation() {
			t.Error("the attestation changed")
		}
	}
	if len(seen) != n || requests[n-1].PoP.IssuedAt != requests[0].PoP.IssuedAt+n-1 {
		t.Errorf("%d different jti in %d requests, iat from %d to %d", len(seen), n, requests[0].PoP.IssuedAt, requests[n-1].PoP.IssuedAt)
	}
}

// TestC14OneAudienceEach: two servers, one Transport, nothing mixed.
func TestC14OneAudienceEach(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	other := transporttest.New(t, transporttest.Config{Clock: f.clock.Now, Policy: policy{NoRandomRefusals: true}})
	f.Transport = f.another(func(c *transport.Config) {
		c.Servers = append(c.Servers, other.Transport())
	})
	f.token(http.StatusOK)
	resp, err := f.RoundTrip(newRequest(t, t.Context(), other.Endpoint(transporttest.Token)))
	if err != nil {
		t.Fatal(err)
	}
	read(t, resp) // the other server trusts another attester, and says so
	r := other.Requests(transporttest.Token)[0]
	if r.PoP.Audience != other.Issuer {
		t.Errorf("aud %q, want %q", r.PoP.Audience, other.Issuer)
	}
	if other.Count(transporttest.Challenge) != 1 || r.PoP.Challenge == f.sent()[0] {
		t.Error("the challenge of one server went to the other")
	}
}

// TestC11C12AnyAsymmetricKey: the algorithm is the key's own.
func TestC11C12AnyAsymmetricKey(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	for alg, private := range map[string]crypto.Signer{"ES384": p384, "EdDSA": edwards} {
		t.Run(alg, func(t *testing.T) {
			key, err := keystore.FromSigner(private)
			if err != nil {
				t.Fatal(err)
			}
			f := newFixture(t, transporttest.Policy{})
			f.Transport = f.another(func(c *transport.Config) {
				c.Key, c.Attestations = key, f.server.Attester.Source(key)
			})
			f.token(http.StatusOK)
			if got := f.server.Requests(transporttest.Token)[0].PoP.Header["alg"]; got != alg {
				t.Errorf("alg %v", got)
			}
		})
	}
}

// lyingKey says that it has another algorithm.
type lyingKey struct {
	keystore.Key
	alg string
}

func (k lyingKey) Algorithm() string { return k.alg }

func TestC11NoMACAndNoNone(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	for _, alg := range []string{"none", "HS256", ""} {
		cfg := transport.Config{Key: lyingKey{f.key, alg}, Attestations: f.source, Servers: []transport.Server{f.server.Transport()}, Base: network(t)}
		rt, err := transport.New(cfg)
		if err != nil {
			continue
		}
		if resp, err := rt.RoundTrip(f.request(t.Context())); err == nil {
			resp.Body.Close()
			t.Errorf("alg %q: a request was sent", alg)
		}
	}
	if n := f.server.Count(transporttest.Token); n != 0 {
		t.Errorf("%d requests with such an algorithm were sent", n)
	}
}

// TestKeysWithLeadingZeros: coordinates and signature halves that begin with
// zero bytes keep their length (test 9).
func TestKeysWithLeadingZeros(t *testing.T) {
	for name, scalar := range map[string]int64{"zero in X": 142, "zero in Y": 1} {
		private := zeroKey(t, name, scalar)
		t.Run(name, func(t *testing.T) {
			key, err := keystore.FromSigner(private)
			if err != nil {
				t.Fatal(err)
			}
			f := newFixture(t, transporttest.Policy{})
			f.Transport = f.another(func(c *transport.Config) {
				c.Key, c.Attestations = key, f.server.Attester.Source(key)
			})
			f.token(http.StatusOK)
		})
	}
	t.Run("short r or s", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{Kind: transporttest.NoChallenges, NoEndpoint: true})
		f.inProcess()
		for range 5000 { // 1 in 128 is short
			f.token(http.StatusOK)
			requests := f.server.Requests(transporttest.Token)
			jws, err := jose.ParseSignedCompact(requests[0].Header.Get(transport.HeaderAttestationPoP), []jose.SignatureAlgorithm{jose.ES256})
			if err != nil {
				t.Fatal(err)
			}
			signature := jws.Signatures[0].Signature
			if len(signature) != 64 {
				t.Fatalf("signature of %d bytes", len(signature))
			}
			if signature[0] == 0 || signature[32] == 0 {
				return
			}
			f.server.Forget()
		}
		t.Fatal("no signature was short")
	})
}

// zeroKey returns the first P-256 key from scalar on that has a coordinate with
// a leading zero byte.
func zeroKey(t *testing.T, name string, scalar int64) *ecdsa.PrivateKey {
	t.Helper()
	for d := scalar; d < scalar+10000; d++ {
		raw := big.NewInt(d).FillBytes(make([]byte, 32))
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if name == "zero in X" && point[1] == 0 || name == "zero in Y" && point[33] == 0 {
			return private
		}
	}
	t.Fatal("no such key")
	return nil
}
