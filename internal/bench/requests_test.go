// SPDX-License-Identifier: Apache-2.0

package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// counted counts what is sent, and how much of it is authenticated.
type counted struct {
	http.RoundTripper
	sent, proved int
}

func (c *counted) RoundTrip(req *http.Request) (*http.Response, error) {
	if c.sent++; req.Header.Get(transport.HeaderAttestation) != "" && req.Header.Get(transport.HeaderAttestationPoP) != "" {
		c.proved++
	}
	return c.RoundTripper.RoundTrip(req)
}

// byHand authenticates as somebody would who has this server alone: no challenges, no
// metadata, no retries.
type byHand struct {
	signer      jose.Signer
	attestation string
	base        http.RoundTripper
}

func (h byHand) RoundTrip(req *http.Request) (*http.Response, error) {
	now := time.Now()
	pop, err := jwt.Signed(h.signer).Claims(map[string]any{"aud": issuer, "jti": rand.Text(), "iat": now.Unix()}).Serialize()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set(transport.HeaderAttestation, h.attestation)
	req.Header.Set(transport.HeaderAttestationPoP, pop)
	return h.base.RoundTrip(req)
}

// newByHand makes one with a key of its own.
func newByHand(t *testing.T, attester *transporttest.Attester, base http.RoundTripper) byHand {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, new(jose.SignerOptions).WithType("oauth-client-attestation-pop+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	return byHand{signer, attester.Attest(private.Public()), base}
}

const issuer = "https://as.example.com"

// TestRequests counts what a token costs that is fetched anew, with a key in software and
// without a network, beside a client that is made by hand, and beside nothing but HTTP.
func TestRequests(t *testing.T) {
	attester := transporttest.New(t, transporttest.Config{}).Attester
	grant := func(rt http.RoundTripper) func() error {
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, &http.Client{Transport: rt})
		config := clientcredentials.Config{ClientID: "client", TokenURL: issuer + "/token", AuthStyle: oauth2.AuthStyleInParams}
		return func() error { _, err := config.Token(ctx); return err }
	}

	ours := &counted{RoundTripper: answers{}}
	c, err := client.New(t.Context(), client.Config{
		Issuer: issuer, ClientID: "client", Store: softkey.New(), Base: ours,
		Attester: attesterFunc(func(_ context.Context, req client.AttestRequest) (string, error) {
			return attester.Attest(req.Key.Public()), nil
		}),
		Metadata: &client.Metadata{Issuer: issuer, TokenEndpoint: issuer + "/token"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })

	hands, plain := &counted{RoundTripper: answers{}}, &counted{RoundTripper: answers{}}
	all := []*struct {
		name   string
		proved int // a request
		base   *counted
		do     func() error
		allocs float64
		took   []time.Duration
	}{
		{name: "net/http", base: plain, do: func() error {
			resp, err := (&http.Client{Transport: plain}).Post(issuer+"/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=client_credentials"))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}},
		{name: "x/oauth2, by hand", proved: 1, base: hands, do: grant(newByHand(t, attester, hands))},
		{name: "instancekey", proved: 1, base: ours, do: grant(c.HTTPClient().Transport)},
	}
	for _, one := range all {
		if err := one.do(); err != nil { // which gets the attestation
			t.Fatalf("%s: %v", one.name, err)
		}
		one.base.sent, one.base.proved = 0, 0
		const runs = 100
		one.allocs = testing.AllocsPerRun(runs, func() { err = one.do() })
		if err != nil {
			t.Fatalf("%s: %v", one.name, err)
		}
		if b := one.base; b.sent != runs+1 || b.proved != one.proved*b.sent {
			t.Errorf("%s: %d requests for %d tokens, %d authenticated", one.name, b.sent, runs+1, b.proved)
		}
	}
	if hand := all[1].allocs; all[2].allocs > 2*hand {
		t.Errorf("%.0f allocations a token, and %.0f by hand", all[2].allocs, hand)
	}
	if !isMeasuring() {
		return
	}
	for range 3000 {
		for _, one := range all {
			start := time.Now()
			if err := one.do(); err != nil {
				t.Fatal(err)
			}
			one.took = append(one.took, time.Since(start))
		}
	}
	t.Logf("%s %s/%s, %d CPUs, %s, %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), version("golang.org/x/oauth2"), version("github.com/go-jose/go-jose/v4"))
	for _, one := range all {
		t.Logf("%-20s P50 %6.0f µs  %4.0f allocations a token", one.name, 1000*ms(quantile(one.took, 0.5)), one.allocs)
	}
}
