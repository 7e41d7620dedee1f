// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestFreshAttestation: contract line 6.
func TestFreshAttestation(t *testing.T) {
	for _, status := range []int{400, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFixture(t, policy{Status: status})
			f.token(http.StatusOK)
			old := f.server.Requests(transporttest.Token)[0].Attestation()
			f.server.Deny(old)
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(2, 0)
			if got := f.source.Rejected(); !slices.Equal(got, []string{old}) {
				t.Errorf("the source was told of %d rejected attestations, want the one", len(got))
			}
			requests := f.server.Requests(transporttest.Token)
			if requests[0].Attestation() != old || requests[1].Attestation() == old {
				t.Error("the retry had the same attestation")
			}
			if requests[0].PoP.ID == requests[1].PoP.ID {
				t.Error("the retry had the same jti")
			}
			f.token(http.StatusOK)
			f.counts(3, 0)
		})
	}
	t.Run("denied again", func(t *testing.T) {
		f := newFixture(t, policy{})
		f.Transport = f.another(func(c *transport.Config) {
			source := c.Attestations
			c.Attestations = sourceFunc(func(ctx context.Context, rejected string, signingAlgs []string) (string, error) {
				attestation, err := source.Attestation(ctx, rejected, signingAlgs)
				f.server.Deny(attestation)
				return attestation, err
			})
		})
		resp := f.token(http.StatusBadRequest)
		if transport.Sends(resp) != 2 {
			t.Errorf("Sends is %d", transport.Sends(resp))
		}
		f.counts(2, 1)
		if n := len(f.source.Rejected()); n != 1 {
			t.Errorf("the source was asked for a fresh one %d times", n)
		}
	})
	t.Run("body cannot be repeated", func(t *testing.T) {
		f := newFixture(t, policy{})
		attestation, _ := f.source.Attestation(t.Context(), "", nil)
		f.server.Deny(attestation)
		req := f.request(t.Context())
		req.GetBody = nil
		f.want(http.StatusBadRequest, req)
		f.counts(1, 1)
	})
	t.Run("single-use challenge is not sent again", func(t *testing.T) {
		f := newFixture(t, policy{Kind: transporttest.SingleUse})
		f.token(http.StatusOK)
		f.token(http.StatusOK) // teaches the kind
		attestation, _ := f.source.Attestation(t.Context(), "", nil)
		f.server.Deny(attestation)
		f.server.Forget()
		f.token(http.StatusOK)
		f.noneTwice(true)
		f.counts(2, 2)
	})
}

// TestBothCausesTogether: contract line 6, three sends at the most; with a DPoP
// nonce as third cause four (decision 5).
func TestBothCausesTogether(t *testing.T) {
	t.Run("challenge and attestation", func(t *testing.T) {
		f := newFixture(t, policy{NoEndpoint: true})
		attestation, _ := f.source.Attestation(t.Context(), "", nil)
		f.server.Deny(attestation)
		resp := f.token(http.StatusOK)
		f.counts(3, 0)
		f.noneTwice(false)
		if n := transport.Sends(resp); n != 3 {
			t.Errorf("Sends is %d", n)
		}
	})
	t.Run("challenge, attestation and nonce", func(t *testing.T) {
		f := newFixture(t, policy{NoEndpoint: true, Nonces: true}, withDPoP)
		attestation, _ := f.source.Attestation(t.Context(), "", nil)
		f.server.Deny(attestation)
		resp := f.token(http.StatusOK)
		f.counts(4, 0)
		if n := transport.Sends(resp); n != 4 {
			t.Errorf("Sends is %d", n)
		}
		ids := make(map[string]bool)
		for _, r := range f.server.Requests(transporttest.Token) {
			ids[r.PoP.ID], ids[r.DPoP.ID] = true, true
		}
		if len(ids) != 8 {
			t.Errorf("%d different jti in 4 PoPs and 4 proofs", len(ids))
		}
	})
	t.Run("all of them without end", func(t *testing.T) {
		f := newFixture(t, policy{NoEndpoint: true, Nonces: true}, withDPoP)
		f.server.Set(func(p *policy) {
			n := 0
			p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
				code := []string{"use_attestation_challenge", "use_fresh_attestation", "use_dpop_nonce"}[n%3]
				n++
				w.Header().Set(transport.HeaderChallenge, fmt.Sprint("c", n))
				w.Header().Set(transport.HeaderDPoPNonce, fmt.Sprint("n", n))
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"error":%q}`, code)
				return true
			}
		})
		f.token(http.StatusBadRequest)
		f.counts(4, 0)
	})
}

// TestNoRetryForOtherErrors: the code decides, and only three are for retries.
func TestNoRetryForOtherErrors(t *testing.T) {
	for _, answer := range []string{
		`{"error":"invalid_client"}`, `{"error":"invalid_client_attestation"}`, `{"error":"invalid_grant"}`,
		`{"error":"USE_ATTESTATION_CHALLENGE"}`, `{"error":" use_attestation_challenge"}`,
		`{"error":["use_attestation_challenge"]}`, `{"Error":"use_attestation_challenge"}`,
		`{"error":"invalid_client","error_description":"use_attestation_challenge"}`,
		`["use_attestation_challenge"]`, `"use_attestation_challenge"`, ``, `null`,
		`{"error":"use_attestation_challenge"`,
		`{"error":"invalid_grant","error":"use_attestation_challenge"}`,
	} {
		t.Run(answer, func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true})
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, _ transporttest.Request) bool {
					w.Header().Set(transport.HeaderChallenge, "another")
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprint(w, answer)
					return true
				}
			})
			resp, err := f.RoundTrip(f.request(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if body := read(t, resp); body != answer {
				t.Errorf("body %q", body)
			}
			f.counts(1, 0)
		})
	}
}

// TestWWWAuthenticate: where resources, and some authorization servers, put the
// code (C29, C44): under any scheme, in any field.
func TestWWWAuthenticate(t *testing.T) {
	tests := []struct {
		fields []string
		retry  bool
	}{
		{[]string{`Bearer error="use_attestation_challenge"`}, true},
		{[]string{`DPoP algs="ES256", error="use_attestation_challenge"`}, true},
		{[]string{`Basic realm="a, b=\"c\"", Bearer error="use_attestation_challenge"`}, true},
		{[]string{`Negotiate YWJj==, Bearer error=use_attestation_challenge`}, true},
		{[]string{`Basic realm="x"`, `attest error="use_attestation_challenge"`}, true},
		{[]string{`bearer ERROR = "use_attestation_challenge"`}, true},
		{[]string{`Bearer error="invalid_token"`, `DPoP error="use_attestation_challenge"`}, true},
		{[]string{`Bearer error_description="use_attestation_challenge"`}, false},
		{[]string{`Bearer realm="error=\"use_attestation_challenge\""`}, false},
		{[]string{`Bearer error="use_attestation_challenge`}, false},
		{[]string{`error="use_attestation_challenge"`}, false},
		{[]string{``, `,,,`, `=`, `"`, `Bearer error=`}, false},
		{nil, false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.fields), func(t *testing.T) {
			f := newFixture(t, policy{})
			sends := 0
			f.Transport = f.another(func(c *transport.Config) {
				c.Resources = []transport.Resource{{Identifier: "https://rs.example/api"}}
				c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
					sends++
					header := http.Header{"Www-Authenticate": test.fields}
					header.Set(transport.HeaderChallenge, fmt.Sprint("c", sends))
					return &http.Response{StatusCode: 401, Header: header, Body: http.NoBody}, nil
				})
			})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://rs.example/api/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			f.want(http.StatusUnauthorized, req)
			if (sends == 2) != test.retry || sends > 2 {
				t.Errorf("%d sends, want a retry: %v", sends, test.retry)
			}
		})
	}
}

// TestSequencesOfRefusals: each cause has its retry, a fresh attestation one in all, and
// the same cause twice in a row ends it, as four sends do.
func TestSequencesOfRefusals(t *testing.T) {
	const challenge, fresh = "use_attestation_challenge", "use_fresh_attestation"
	for name, test := range map[string]struct {
		refusals []string // one after the other; what comes then is granted
		sends    int
		status   int
	}{
		"none":                               {nil, 1, 200},
		"a challenge":                        {[]string{challenge}, 2, 200},
		"a challenge twice":                  {[]string{challenge, challenge}, 2, 400},
		"fresh twice":                        {[]string{fresh, fresh}, 2, 400},
		"fresh, a challenge":                 {[]string{fresh, challenge}, 3, 200},
		"fresh, a challenge, fresh":          {[]string{fresh, challenge, fresh}, 3, 400},
		"a challenge, fresh, a challenge":    {[]string{challenge, fresh, challenge}, 4, 200},
		"a challenge, fresh, and both again": {[]string{challenge, fresh, challenge, fresh}, 4, 400},
		"something else":                     {[]string{"invalid_grant"}, 1, 400},
		"a challenge, something else":        {[]string{challenge, "invalid_grant"}, 2, 400},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{})
			sends := 0
			f.Transport = f.another(func(c *transport.Config) {
				base := c.Base
				c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
					if req.URL.String() != f.server.Endpoint(transporttest.Token) {
						return base.RoundTrip(req)
					}
					req.Body.Close()
					sends++
					resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, Request: req}
					if sends <= len(test.refusals) {
						resp.StatusCode = 400
						resp.Header.Set(transport.HeaderChallenge, fmt.Sprint("challenge-", sends))
						resp.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`{"error":%q}`, test.refusals[sends-1])))
					}
					return resp, nil
				})
			})
			resp, err := f.RoundTrip(f.request(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if sends != test.sends || transport.Sends(resp) != sends || resp.StatusCode != test.status {
				t.Errorf("%d sends, and the response says %d, status %d; want %d, status %d", sends, transport.Sends(resp), resp.StatusCode, test.sends, test.status)
			}
		})
	}
}
