// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestClockIsLearntFromTheIssuerAlone: whoever else is asked over TLS, in whatever
// order, may say what it wants. iat and attestations follow the issuer, which takes iat
// 15 s from its own time.
func TestClockIsLearntFromTheIssuerAlone(t *testing.T) {
	const other, attester = "other.example.com", "attester.example.com"
	const resource, described = "https://api.example.com/v1", "https://described.example.com/v1"
	get := func(place string) func(*testing.T, *client.Client) {
		return func(t *testing.T, c *client.Client) {
			resp, err := c.HTTPClient().Get(place)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	for name, from := range map[string]func(*testing.T, *client.Client){
		"GET of another host": get("https://" + other + "/page"),
		"a form for another host": func(t *testing.T, c *client.Client) {
			postForm(t, c.HTTPClient(), "https://"+other+"/form", url.Values{"a": {"b"}})
		},
		"another host, redirects":     get("https://" + other + "/redirect"),
		"a resource":                  get(resource + "/x"),
		"a resource's neighbour":      get("https://api.example.com/other"),
		"a resource with metadata":    get(described + "/x"),
		"another host, without TLS":   get("http://as.invalid/plain"),
		"another port of the issuer":  nil, // filled in below
		"a subdomain of the issuer":   get("https://sub.as.invalid/page"),
		"the attester, with an error": func(*testing.T, *client.Client) {},
	} {
		for _, wrong := range []time.Duration{-5 * 24 * time.Hour, 3 * time.Hour} {
			for _, learnt := range []bool{false, true} {
				t.Run(name+" "+wrong.String()+map[bool]string{true: ", later"}[learnt], func(t *testing.T) {
					r := newRig(t, transporttest.Policy{})
					issuer, _ := url.Parse(r.Issuer)
					site := newSite()
					others := 0
					if from == nil {
						from = get("https://" + issuer.Hostname() + ":1/page")
					}
					site.set("https://"+other+"/redirect", redirect(302, "https://"+other+"/page"))
					site.set(wellKnownOf(described), text(`{"resource":"`+described+`","client_attestation_pop_methods_supported":["attestation_pop_jwt"]}`))
					off := func() time.Time { return r.clock.now().Add(wrong) }
					foreign := dated{inProcess{site}, off, 0, ""}
					right := dated{inProcess{r}, r.clock.now, 0, ""}
					base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
						if req.URL.Host != issuer.Host {
							others++
							resp, err := foreign.RoundTrip(req)
							if err == nil && req.URL.Scheme == "https" {
								resp.TLS = overTLSState
							}
							return resp, err
						}
						return overTLS{right}.RoundTrip(req)
					})
					asked := 0
					c := r.client(t, func(cfg *client.Config) {
						cfg.Base = base
						cfg.Resources = []client.Resource{{Identifier: resource, Attestation: client.AttestAlways}, {Identifier: described}}
						mine := cfg.Attester
						remote := client.HTTPAttester{URL: "https://" + attester, Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
							asked++
							return overTLS{foreign}.RoundTrip(req)
						})}}
						cfg.Attester = &testAttester{attest: func(ctx context.Context, req client.AttestRequest, _ int) (string, error) {
							if _, err := remote.Attest(ctx, req); err == nil {
								t.Error("the attester did not fail")
							}
							return mine.Attest(ctx, req)
						}}
					})
					if learnt {
						if err := grant(t.Context(), c); err != nil {
							t.Fatal(err)
						}
					}
					from(t, c)
					for range 2 {
						if err := grant(t.Context(), c); err != nil {
							t.Errorf("a wrong clock has moved ours: %v", err)
						}
					}
					if others == 0 && !strings.HasPrefix(name, "the attester") || asked == 0 {
						t.Errorf("%d requests to others, %d to the attester", others, asked)
					}
					requests := r.Requests(transporttest.Token)
					last := requests[len(requests)-1]
					if iat := time.Unix(last.PoP.IssuedAt, 0); iat.Sub(r.clock.now()).Abs() > 2*time.Second {
						t.Errorf("iat %s, want %s", iat, r.clock.now())
					}
				})
			}
		}
	}
}

// TestClockIsLearntFromTheIssuerAtAll, so that the test above can fail.
func TestClockIsLearntFromTheIssuerAtAll(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t, func(cfg *client.Config) {
		cfg.Base = overTLS{dated{inProcess{r}, r.clock.now, 0, ""}}
		cfg.Clock = func() time.Time { return r.clock.now().Add(-3 * time.Hour) }
	})
	if err := grant(t.Context(), c); err != nil {
		t.Error(err)
	}
}
