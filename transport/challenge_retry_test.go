// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC29RetriesOnceWithTheChallengeOfTheError: test 4.
func TestC29RetriesOnceWithTheChallengeOfTheError(t *testing.T) {
	for _, status := range []int{400, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFixture(t, policy{Status: status})
			f.token(http.StatusOK)
			f.clock.advance(time.Hour) // old enough that its refusal says nothing about the server's kind
			f.server.Rotate()
			f.server.Forget()
			f.token(http.StatusOK)
			f.counts(2, 0)
			requests := f.server.Requests(transporttest.Token)
			if requests[0].Status != status {
				t.Fatalf("the refusal was a %d", requests[0].Status)
			}
			if requests[1].PoP.Challenge != requests[0].Offered() {
				t.Errorf("the retry had %q, want the error's own %q", requests[1].PoP.Challenge, requests[0].Offered())
			}
			if requests[0].PoP.ID == requests[1].PoP.ID {
				t.Error("the retry had the same jti")
			}
			f.token(http.StatusOK)
			f.counts(3, 0)
			if sent := f.sent(); sent[2] != sent[1] {
				t.Errorf("then sent %q, want the accepted %q", sent[2], sent[1])
			}
		})
	}
}

// TestC29StoresTheChallengeOfTheRetrysResponse: test 4, last part.
func TestC29StoresTheChallengeOfTheRetrysResponse(t *testing.T) {
	f := newFixture(t, policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true})
	f.token(http.StatusOK)
	f.token(http.StatusOK)
	f.counts(3, 0)
	if got, want := f.sent()[2], f.server.Requests(transporttest.Token)[1].Offered(); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// TestC30NeverRetriesWithoutEnd: contract line 5, test 5.
func TestC30NeverRetriesWithoutEnd(t *testing.T) {
	tests := []struct {
		name               string
		policy             policy
		tokens, challenges int
	}{
		{"a new challenge each time", policy{RefuseAll: true}, 2, 1},
		{"a new challenge each time, single use", policy{RefuseAll: true, Kind: transporttest.SingleUse}, 2, 1},
		{"no endpoint", policy{RefuseAll: true, NoEndpoint: true}, 2, 0},
		{"the same challenge", policy{RefuseAll: true, RepeatRefused: true}, 1, 1},
		{"the same challenge, no endpoint", policy{RefuseAll: true, RepeatRefused: true, NoEndpoint: true}, 2, 0},
		{"no header", policy{RefuseAll: true, Offer: transporttest.OfferNever}, 2, 2},
		{"no header, no endpoint", policy{RefuseAll: true, Offer: transporttest.OfferNever, NoEndpoint: true}, 1, 0},
		{"huge challenge", policy{RefuseAll: true, ChallengeBytes: 5000, NoEndpoint: true}, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, test.policy)
			f.token(http.StatusBadRequest)
			f.counts(test.tokens, test.challenges)
			if sent := f.sent(); len(sent) == 2 && sent[0] == sent[1] {
				t.Errorf("the refused challenge %q was sent again", sent[0])
			}
		})
	}
}

// TestRefusalWithoutHeader: the endpoint is asked once; what it repeats is not
// sent again; if it fails, the caller gets the server's answer.
func TestRefusalWithoutHeader(t *testing.T) {
	endpoint := func(f *fixture, status int, body string) {
		f.server.Set(func(p *policy) {
			p.RefuseAll, p.Offer = true, transporttest.OfferNever
			p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
				if r.Endpoint == transporttest.Challenge {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					fmt.Fprint(w, body)
				}
				return r.Endpoint == transporttest.Challenge
			}
		})
	}
	t.Run("endpoint repeats the challenge", func(t *testing.T) {
		f := newFixture(t, policy{})
		endpoint(f, 200, `{"attestation_challenge":"always this"}`)
		f.token(http.StatusBadRequest)
		f.counts(1, 2)
	})
	t.Run("endpoint fails", func(t *testing.T) {
		f := newFixture(t, policy{})
		f.token(http.StatusOK)
		f.server.Forget()
		endpoint(f, 503, "")
		resp, err := f.RoundTrip(f.request(t.Context()))
		if err != nil {
			t.Fatalf("error %v, want the server's refusal", err)
		}
		if body := read(t, resp); resp.StatusCode != 400 || !strings.Contains(body, "use_attestation_challenge") {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		f.counts(1, 1)
	})
	t.Run("endpoint has none", func(t *testing.T) {
		f := newFixture(t, policy{})
		f.token(http.StatusOK)
		f.server.Forget()
		endpoint(f, 200, `{}`)
		f.token(http.StatusBadRequest)
		f.counts(1, 1)
	})
}
