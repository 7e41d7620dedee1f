// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC26MostRecentChallengeWins: from whichever response it came (C32).
func TestC26MostRecentChallengeWins(t *testing.T) {
	answers := []struct {
		name   string
		change func(*policy)
		req    func(*fixture) *http.Request
		status int
	}{
		{"token 200", func(*policy) {}, nil, 200},
		{"PAR 201", func(*policy) {}, func(f *fixture) *http.Request {
			return newRequest(f.t, f.t.Context(), f.server.Endpoint(transporttest.PAR))
		}, 201},
		{"401 invalid_client", func(p *policy) { p.UnknownClient = true }, nil, 401},
		{"418 that is no JSON", func(p *policy) { p.UnknownClient, p.Status, p.ContentType = true, 418, "text/html" }, nil, 418},
		{"503", func(p *policy) { p.UnknownClient, p.Status = true, 503 }, nil, 503},
	}
	for _, test := range answers {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways})
			f.server.Set(test.change)
			req := f.request(t.Context())
			if test.req != nil {
				req = test.req(f)
			}
			f.want(test.status, req)
			answered := f.server.Requests(transporttest.Token, transporttest.PAR)[0]
			if answered.Offered() == "" {
				t.Fatal("the server offered nothing")
			}
			f.server.Set(func(p *policy) { p.UnknownClient, p.Status = false, 0 })
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(1, 0)
			if got := f.sent()[0]; got != answered.Offered() {
				t.Errorf("sent %q, want the challenge of that response, %q", got, answered.Offered())
			}
		})
	}
}

// TestC32RetriesAreLookedAtToo: contract line 7.
func TestC32RetriesAreLookedAtToo(t *testing.T) {
	for name, status := range map[string]int{"retry success": 200, "retry failure": 400} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true})
			f.server.Set(func(p *policy) { p.RefuseAll = status == 400 })
			f.token(status)
			f.counts(2, 0)
			last := f.server.Requests(transporttest.Token)[1]
			f.server.Set(func(p *policy) { p.RefuseAll = false })
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(1, 0)
			if got := f.sent()[0]; got != last.Offered() {
				t.Errorf("sent %q, want the last one offered, %q", got, last.Offered())
			}
		})
	}
}

// TestNoEndpointSendsTheLastOneSeen: decision 4, and the table of the
// contract's third measurement.
func TestNoEndpointSendsTheLastOneSeen(t *testing.T) {
	for _, test := range []struct {
		name  string
		kind  transporttest.Kind
		sends int // for ten requests
	}{{"time window", transporttest.Reusable, 11}, {"single use", transporttest.SingleUse, 20}} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policy{Kind: test.kind, NoEndpoint: true})
			for range 10 {
				f.token(http.StatusOK)
			}
			f.counts(test.sends, 0)
		})
	}
	t.Run("also if the retry was lost", func(t *testing.T) {
		f := newFixture(t, policy{NoEndpoint: true})
		f.token(http.StatusOK)
		f.server.Rotate()
		f.server.Forget()
		f.server.Set(func(p *policy) {
			n := 0
			p.Before = func(transporttest.Request) {
				if n++; n == 2 {
					f.server.Set(func(p *policy) { p.Cut = true })
				}
			}
		})
		f.fail(f.request(t.Context()))
		f.counts(2, 0)
		f.server.Set(func(p *policy) { p.Cut, p.Before = false, nil })
		f.token(http.StatusOK)
		f.counts(3, 0)
		if sent := f.sent(); sent[2] != sent[1] {
			t.Errorf("sent %q, want the last one seen", sent)
		}
	})
}
