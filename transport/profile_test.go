package transport_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC18OpenID4VCI: the claims that verifiers of older drafts want, and no
// member that is empty.
func TestC18OpenID4VCI(t *testing.T) {
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.ClientID, c.Servers[0].Profile = "client", transport.ProfileOpenID4VCI
	})
	f.token(http.StatusOK)
	pop := f.server.Requests(transporttest.Token)[0].PoP
	if names := slices.Sorted(maps.Keys(pop.Claims)); !slices.Equal(names, []string{"aud", "challenge", "exp", "iat", "iss", "jti", "nbf", "nonce"}) {
		t.Errorf("claims %q", names)
	}
	exp, _ := pop.Claims["exp"].(float64)
	if pop.Claims["iss"] != "client" || pop.Nonce != pop.Challenge || pop.Claims["nbf"] != float64(pop.IssuedAt) || int64(exp) <= pop.IssuedAt || int64(exp) > pop.IssuedAt+300 {
		t.Errorf("claims %v", pop.Claims)
	}
	t.Run("no challenge", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.NoChallenges, NoEndpoint: true}, func(c *transport.Config) {
			c.ClientID, c.Servers[0].Profile = "client", transport.ProfileOpenID4VCI
		})
		f.token(http.StatusOK)
		if claims := f.server.Requests(transporttest.Token)[0].PoP.Claims; claims["nonce"] != nil || claims["challenge"] != nil {
			t.Errorf("claims %v", claims)
		}
	})
}

// TestCodeInErrorDescription: for that profile only.
func TestCodeInErrorDescription(t *testing.T) {
	for profile, sends := range map[transport.Profile]int{"": 1, transport.ProfileDraft10: 1, transport.ProfileOpenID4VCI: 2} {
		t.Run(string(profile), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
				c.ClientID, c.Servers[0].Profile = "client", profile
			})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					w.Header().Set(transport.HeaderChallenge, "c"+r.PoP.ID)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprint(w, `{"error":"invalid_client","error_description":"use_attestation_challenge"}`)
					return true
				}
			})
			f.token(http.StatusBadRequest)
			f.counts(sends, 0)
		})
	}
}

// TestDraft10CombinedMode: the challenge is the proof's nonce.
func TestDraft10CombinedMode(t *testing.T) {
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.Servers[0].Method, c.Servers[0].Profile = transport.MethodDPoP, transport.ProfileDraft10
	})
	var nonces []string
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			switch {
			case r.Endpoint == transporttest.Challenge:
				fmt.Fprint(w, `{"attestation_challenge":"first"}`)
			case len(nonces) == 0:
				nonces = append(nonces, r.DPoP.Nonce)
				w.Header().Set(transport.HeaderChallenge, "second")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"error":"use_attestation_challenge"}`)
			default:
				nonces = append(nonces, r.DPoP.Nonce)
				fmt.Fprint(w, `{"access_token":"a","token_type":"DPoP"}`)
			}
			return true
		}
	})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	if !slices.Equal(nonces, []string{"first", "second", "second"}) {
		t.Errorf("nonces %q", nonces)
	}
	f.counts(3, 1)
}

// TestExtraClaims: what a deployment adds to the PoP, and what it cannot
// take over.
func TestExtraClaims(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) {
		c.Claims = func(req *http.Request) (map[string]any, error) {
			return map[string]any{"path": req.URL.Path}, nil
		}
	})
	f.token(http.StatusOK) // at the second send
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.PoP.Claims["path"] != r.Path {
			t.Errorf("claims %v", r.PoP.Claims)
		}
	}
	for _, name := range []string{"aud", "jti", "iat", "challenge", "iss", "exp", "nonce", "req_hash"} {
		f := newFixture(t, policy{}, func(c *transport.Config) {
			c.Claims = func(*http.Request) (map[string]any, error) { return map[string]any{name: "mine"}, nil }
		})
		f.fail(f.request(t.Context()))
		f.counts(0, 0)
	}
	f = newFixture(t, policy{}, func(c *transport.Config) {
		c.Claims = func(*http.Request) (map[string]any, error) { return nil, errTest }
	})
	if err := f.fail(f.request(t.Context())); !errors.Is(err, errTest) {
		t.Errorf("error %v", err)
	}
	f.counts(0, 0)
}

func leftHalf(octets string) string {
	sum := sha256.Sum256([]byte(octets))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// TestBindMessage: the hash is in the PoPs of one request and its retries.
func TestBindMessage(t *testing.T) {
	const message = "the pushed authorization request"
	f := newFixture(t, policy{NoEndpoint: true})
	ctx := transport.BindMessage(t.Context(), []byte(message))
	f.want(http.StatusOK, f.request(ctx))
	f.counts(2, 0)
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.PoP.Claims["req_hash"] != leftHalf(message) {
			t.Errorf("req_hash %v", r.PoP.Claims["req_hash"])
		}
	}
	if err := f.fail(f.request(ctx)); !errors.Is(err, transport.ErrBinding) {
		t.Errorf("the second request with one context: %v", err)
	}
	f.counts(2, 0)
	f.token(http.StatusOK)
	if hash, ok := f.server.Requests(transporttest.Token)[2].PoP.Claims["req_hash"]; ok {
		t.Errorf("a request without a message has req_hash %v", hash)
	}
	t.Run("combined mode", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		if err := f.fail(f.request(transport.BindMessage(t.Context(), []byte(message)))); !errors.Is(err, transport.ErrBinding) {
			t.Errorf("error %v", err)
		}
		f.counts(0, 0)
	})
	t.Run("octets are copied", func(t *testing.T) {
		f := newFixture(t, policy{})
		octets := []byte(message)
		ctx := transport.BindMessage(t.Context(), octets)
		octets[0] = 'X'
		f.want(http.StatusOK, f.request(ctx))
		if got := f.server.Requests(transporttest.Token)[0].PoP.Claims["req_hash"]; got != leftHalf(message) {
			t.Errorf("req_hash %v", got)
		}
	})
}

// TestBindBody: each PoP vouches for its own request's body.
func TestBindBody(t *testing.T) {
	f := newFixture(t, policy{NoEndpoint: true}, func(c *transport.Config) { c.BindBody = true })
	f.token(http.StatusOK)
	for _, r := range f.server.Requests(transporttest.Token) {
		if r.PoP.Claims["req_hash"] != leftHalf(form) || string(r.Body) != form {
			t.Errorf("req_hash %v of %q", r.PoP.Claims["req_hash"], r.Body)
		}
	}
	f.server.Forget()
	once := f.request(t.Context())
	once.GetBody = nil
	huge := f.request(t.Context())
	huge.GetBody = func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(&countingBody{start: strings.NewReader("")}, 2<<20)), nil
	}
	for _, req := range []*http.Request{once, huge} {
		body := newSpyBody()
		req.Body = body
		if err := f.fail(req); !errors.Is(err, transport.ErrBinding) {
			t.Errorf("error %v", err)
		}
		if n := body.closes.Load(); n != 1 {
			t.Errorf("body closed %d times", n)
		}
	}
	f.counts(0, 0)
}

// TestTrace: each hook is called as often as the thing happens.
func TestTrace(t *testing.T) {
	var (
		mu     sync.Mutex
		events = make(map[string][]transport.TraceEvent)
	)
	hook := func(name string) func(context.Context, transport.TraceEvent) {
		return func(ctx context.Context, e transport.TraceEvent) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Value(traceKey{}) != "value" {
				t.Errorf("%s: the request's context was lost", name)
			}
			events[name] = append(events[name], e)
		}
	}
	f := newFixture(t, policy{}, func(c *transport.Config) {
		c.Trace = &transport.Trace{Challenge: hook("challenge"), Signature: hook("signature"), Request: hook("request")}
	})
	f.server.Set(func(p *policy) {
		p.Before = func(r transporttest.Request) {
			if r.Endpoint == transporttest.Token {
				f.server.Rotate()
				f.server.Set(func(p *policy) { p.Before = nil })
			}
		}
	})
	f.want(http.StatusOK, f.request(context.WithValue(t.Context(), traceKey{}, "value")))
	if c, s, r := len(events["challenge"]), len(events["signature"]), len(events["request"]); c != 1 || s != 2 || r != 2 {
		t.Fatalf("%d challenges, %d signatures, %d requests", c, s, r)
	}
	first, second := events["request"][0], events["request"][1]
	if first.Send != 1 || first.Status != 400 || first.Code != "use_attestation_challenge" || second.Send != 2 || second.Status != 200 || second.Code != "" {
		t.Errorf("%+v, %+v", first, second)
	}
	for name, all := range events {
		for _, e := range all {
			if e.Start.IsZero() || e.Duration < 0 || e.Err != nil || name != "signature" && e.Audience != f.server.Issuer {
				t.Errorf("%s: %+v", name, e)
			}
			f.noSecretIn(fmt.Sprintf("%+v", e))
		}
	}
	t.Run("failures", func(t *testing.T) {
		var failed []error
		f := newFixture(t, policy{Cut: true}, func(c *transport.Config) {
			c.Trace = &transport.Trace{Challenge: func(_ context.Context, e transport.TraceEvent) { failed = append(failed, e.Err) }}
		})
		f.fail(f.request(t.Context()))
		if len(failed) != 1 || failed[0] == nil {
			t.Errorf("%v", failed)
		}
	})
}

type traceKey struct{}
