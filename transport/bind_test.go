// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/instancekey/instancekey/internal/binding"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// What the claim of these bodies is was computed with openssl:
//
//	printf %s "$body" | openssl dgst -sha256 -binary | head -c 16 | basenc --base64url
const (
	parBody      = "response_type=code&client_id=client&scope=readings"
	parHash256   = "_MFHNojYyPMUc-17kwMi3A"
	emptyHash256 = "47DEQpj8HBSa-_TImW-5JA"
)

func sha256Half(octets []byte) string {
	sum := sha256.Sum256(octets)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// claims returns a claim of the PoP of each token request, nil where there is none.
func (f *fixture) claims(name string) []any {
	f.t.Helper()
	var out []any
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.PoP == nil {
			f.t.Fatalf("a token request without PoP; the server saw:\n%s", f.history())
		}
		out = append(out, r.PoP.Claims[name])
	}
	return out
}

func TestBindMessageHash(t *testing.T) {
	for name, test := range map[string]struct{ octets, want string }{
		"pushed authorization request": {parBody, parHash256},
		"empty":                        {"", emptyHash256},
		"any octets":                   {"\x00\xff\r\n", sha256Half([]byte("\x00\xff\r\n"))},
		"2 MiB":                        {strings.Repeat("x", 2<<20), sha256Half(bytes.Repeat([]byte("x"), 2<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{})
			f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), []byte(test.octets))))
			f.token(http.StatusOK) // and no other request
			if got := f.claims("req_hash"); len(got) != 2 || got[0] != test.want || got[1] != nil {
				t.Errorf("req_hash %q, want %q and none", got, test.want)
			}
		})
	}
}

// TestWithoutMessage: a context whose message is gone can be used again and
// again, and BindBody counts once more.
func TestWithoutMessage(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	bound := transport.BindMessage(t.Context(), []byte(parBody))
	ctx := binding.Without(bound)
	for range 2 {
		f.want(http.StatusOK, f.request(ctx))
	}
	f.want(http.StatusOK, f.request(bound)) // which is as good as it was
	f.want(http.StatusOK, f.request(transport.BindMessage(ctx, []byte(parBody))))
	f.Transport = f.another(func(c *transport.Config) { c.BindBody = true })
	f.want(http.StatusOK, f.request(ctx))
	if got, want := f.claims("req_hash"), []any{nil, nil, parHash256, parHash256, sha256Half([]byte(form))}; !slices.Equal(got, want) {
		t.Errorf("req_hash %v, want %v", got, want)
	}
}

// The hash function is that of the PoP's algorithm.
func TestBindMessageAlgorithms(t *testing.T) {
	sum384, sum512 := sha512.Sum384([]byte(parBody)), sha512.Sum512([]byte(parBody))
	for algorithm, test := range map[string]struct {
		curve elliptic.Curve
		want  string
	}{
		"ES256": {elliptic.P256(), parHash256},
		"ES384": {elliptic.P384(), base64.RawURLEncoding.EncodeToString(sum384[:24])},
		"ES512": {elliptic.P521(), base64.RawURLEncoding.EncodeToString(sum512[:32])},
		"EdDSA": {nil, base64.RawURLEncoding.EncodeToString(sum512[:32])},
	} {
		t.Run(algorithm, func(t *testing.T) {
			_, edwards, _ := ed25519.GenerateKey(rand.Reader)
			key, err := keystore.FromSigner(edwards)
			if test.curve != nil {
				private, _ := ecdsa.GenerateKey(test.curve, rand.Reader)
				key, err = keystore.FromSigner(private)
			}
			if err != nil || key.Algorithm() != algorithm {
				t.Fatalf("key %v, %v", key, err)
			}
			f := newFixture(t, transporttest.Policy{})
			f.source = f.server.Attester.Source(key)
			f.Transport = f.another(func(cfg *transport.Config) { cfg.Key = key })
			f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), []byte(parBody))))
			if got := f.claims("req_hash"); len(got) != 1 || got[0] != test.want {
				t.Errorf("req_hash %q, want %q", got, test.want)
			}
		})
	}
}

// unknownAlgKey claims an algorithm that has no known hash function.
type unknownAlgKey struct{ keystore.Key }

func (unknownAlgKey) Algorithm() string { return "ML-DSA-44" }

func TestBindMessageUnknownAlgorithm(t *testing.T) {
	f := newFixture(t, transporttest.Policy{}, func(cfg *transport.Config) { cfg.Key = unknownAlgKey{cfg.Key} })
	if err := f.fail(f.request(transport.BindMessage(t.Context(), nil))); !errors.Is(err, transport.ErrBinding) {
		t.Errorf("error %v", err)
	}
	f.counts(0, 0)
}

// TestBindMessageOnce: one message, one PoP. The second use sends nothing at
// all, also if both come at once or at different servers.
func TestBindMessageOnce(t *testing.T) {
	t.Run("one after the other", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{})
		ctx := transport.BindMessage(t.Context(), []byte(parBody))
		f.want(http.StatusOK, f.request(ctx))
		for range 2 {
			body := newSpyBody()
			req := f.request(ctx)
			req.Body = body
			err := f.fail(req)
			var failed *transport.Error
			if !errors.Is(err, transport.ErrBinding) || !errors.As(err, &failed) || failed.Temporary() || body.closes.Load() != 1 {
				t.Errorf("error %v; body closed %d times", err, body.closes.Load())
			}
		}
		f.counts(1, 1)
		f.want(http.StatusOK, f.request(transport.BindMessage(ctx, []byte("another")))) // over the used one
		if got := f.claims("req_hash"); got[1] != sha256Half([]byte("another")) {
			t.Errorf("req_hash %q", got)
		}
	})
	t.Run("a derived context", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{})
		ctx, cancel := context.WithCancel(transport.BindMessage(t.Context(), []byte(parBody)))
		defer cancel()
		f.want(http.StatusOK, f.request(ctx))
		if err := f.fail(f.request(context.WithoutCancel(ctx))); !errors.Is(err, transport.ErrBinding) {
			t.Errorf("error %v", err)
		}
		f.counts(1, 1)
	})
	t.Run("at once", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{})
		ctx := transport.BindMessage(t.Context(), []byte(parBody))
		const n = 16
		errs := make(chan error, n)
		for range n {
			go func() {
				resp, err := f.RoundTrip(f.request(ctx))
				if err == nil {
					resp.Body.Close()
				}
				errs <- err
			}()
		}
		refused := 0
		for range n {
			if err := <-errs; errors.Is(err, transport.ErrBinding) {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		if refused != n-1 {
			t.Errorf("%d of %d refused", refused, n)
		}
		f.counts(1, 1)
	})
	t.Run("requests that pass through do not use it up", func(t *testing.T) {
		f := newFixture(t, transporttest.Policy{})
		ctx := transport.BindMessage(t.Context(), []byte(parBody))
		f.want(http.StatusNotFound, newRequest(t, ctx, f.server.URL+"/elsewhere"))
		f.want(http.StatusOK, f.request(ctx))
		if got := f.claims("req_hash"); got[0] != parHash256 {
			t.Errorf("req_hash %q", got)
		}
	})
}

// TestBindMessageRetries: a request that is sent again vouches for the same.
func TestBindMessageRetries(t *testing.T) {
	f := newFixture(t, transporttest.Policy{NoEndpoint: true})
	f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), []byte(parBody))))
	f.server.Deny(f.server.Requests()[0].Attestation())
	f.server.Rotate()
	f.want(http.StatusOK, f.request(transport.BindMessage(t.Context(), nil)))
	want := []any{parHash256, parHash256, emptyHash256, emptyHash256, emptyHash256}
	if got := f.claims("req_hash"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("req_hash %q, want %q; the server saw:\n%s", got, want, f.history())
	}
}

// The octets are those of the call, whatever becomes of the slice.
func TestBindMessageCopies(t *testing.T) {
	f := newFixture(t, transporttest.Policy{})
	octets := []byte(parBody)
	ctx := transport.BindMessage(t.Context(), octets)
	clear(octets)
	f.want(http.StatusOK, f.request(ctx))
	if got := f.claims("req_hash"); got[0] != parHash256 {
		t.Errorf("req_hash %q", got)
	}
}

// TestBindWithoutPoP: where no PoP JWT is sent, nothing is sent at all.
func TestBindWithoutPoP(t *testing.T) {
	for _, profile := range []transport.Profile{transport.ProfileDraft12, transport.ProfileDraft10} {
		t.Run("combined mode "+string(profile), func(t *testing.T) {
			f := newFixture(t, transporttest.Policy{Combined: true, Nonces: true}, func(cfg *transport.Config) { cfg.Servers[0].Profile = profile })
			if err := f.fail(f.request(transport.BindMessage(t.Context(), []byte(parBody)))); !errors.Is(err, transport.ErrBinding) {
				t.Errorf("error %v", err)
			}
			f.counts(0, 0)
		})
	}
	t.Run("BindBody in combined mode", func(t *testing.T) {
		server := transporttest.New(t, transporttest.Config{Policy: transporttest.Policy{Combined: true}})
		_, err := transport.New(transport.Config{
			Key: newKey(), Attestations: server.Attester.Source(newKey()), Servers: []transport.Server{server.Transport()}, BindBody: true,
		})
		if err == nil || !strings.Contains(err.Error(), "BindBody") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a resource that gets no attestation", func(t *testing.T) {
		var requests atomic.Int64
		rs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
		defer rs.Close()
		f := newFixture(t, transporttest.Policy{}, func(cfg *transport.Config) {
			cfg.Resources = []transport.Resource{{Identifier: rs.URL, Unattested: true}}
		})
		if err := f.fail(newRequest(t, transport.BindMessage(t.Context(), nil), rs.URL)); !errors.Is(err, transport.ErrBinding) {
			t.Errorf("error %v", err)
		}
		if n := requests.Load(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}
