// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestC26LateAnswerBringsNoOldChallengeBack: an answer that comes after another one's
// challenge does not put the older challenge it was sent with in its place.
func TestC26LateAnswerBringsNoOldChallengeBack(t *testing.T) {
	f := newFixture(t, policy{})
	f.token(http.StatusOK) // brings the first challenge
	judged := f.hold()
	late := f.start(t.Context())
	answer := <-judged
	f.server.Set(func(p *policy) {
		p.After = nil
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint == transporttest.Token {
				w.Header().Set(transport.HeaderChallenge, "the newest")
				w.WriteHeader(http.StatusOK)
			}
			return r.Endpoint == transporttest.Token
		}
	})
	f.token(http.StatusOK)
	close(answer)
	if err := <-late; err != nil {
		t.Fatal(err)
	}
	f.server.Forget()
	f.token(http.StatusOK)
	if got := f.sent()[0]; got != "the newest" {
		t.Errorf("sent %q, want the most recently received challenge", got)
	}
}

// TestRetriesForBothAtAReusableServer: one that is known to take a challenge more than
// once is not asked for another on behalf of a last send.
func TestRetriesForBothAtAReusableServer(t *testing.T) {
	f := newFixture(t, policy{}, withDPoP)
	f.token(http.StatusOK)
	f.token(http.StatusOK) // with the same challenge
	f.server.Forget()
	sends := 0
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint != transporttest.Token {
				return false
			}
			switch sends++; sends {
			case 1:
				w.Header().Set(transport.HeaderChallenge, "of the refusal")
				writeCode(w, "use_attestation_challenge")
			case 2:
				w.Header().Set(transport.HeaderDPoPNonce, "of the refusal")
				writeCode(w, "use_dpop_nonce")
			default:
				w.WriteHeader(http.StatusOK)
			}
			return true
		}
	})
	f.token(http.StatusOK)
	f.counts(3, 0)
	if sent := f.sent(); sent[2] != "of the refusal" {
		t.Errorf("sent %q, want the challenge of the refusal again", sent)
	}
}

// TestBothOfSingleUseWithoutEndpoint (N9): a server that takes each challenge and each
// nonce once, and gives one of them with each refusal, gets both in four sends.
func TestBothOfSingleUseWithoutEndpoint(t *testing.T) {
	for _, nonceFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("nonceFirst=%v", nonceFirst), func(t *testing.T) {
			f := newFixture(t, policy{NoEndpoint: true}, withDPoP)
			challenges, nonces, given, sends := make(map[string]bool), make(map[string]bool), 0, 0
			use := func(w http.ResponseWriter, good map[string]bool, value, header, code string) bool {
				if good[value] {
					delete(good, value)
					return true
				}
				given++
				value = fmt.Sprint("value ", given)
				good[value] = true
				w.Header().Set(header, value)
				writeCode(w, code)
				return false
			}
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					sends++
					challenge := func() bool {
						return use(w, challenges, r.PoP.Challenge, transport.HeaderChallenge, "use_attestation_challenge")
					}
					nonce := func() bool {
						return use(w, nonces, r.DPoP.Nonce, transport.HeaderDPoPNonce, "use_dpop_nonce")
					}
					if nonceFirst && nonce() && challenge() || !nonceFirst && challenge() && nonce() {
						w.WriteHeader(http.StatusOK)
					}
					return true
				}
			})
			for i := range 10 {
				before := sends
				f.token(http.StatusOK)
				if n := sends - before; n > 4 {
					t.Errorf("token %d: %d sends", i, n)
				}
			}
		})
	}
}

// TestEndpointGaveNoneOnce (N6): an endpoint that had no challenge to give, once or for a
// while, is asked again when the server wants one, though its refusal brings none.
func TestEndpointGaveNoneOnce(t *testing.T) {
	for _, empty := range []int{1, 3} {
		t.Run(fmt.Sprint(empty), func(t *testing.T) {
			f := newFixture(t, policy{Offer: transporttest.OfferNever})
			fetches := 0
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
					if r.Endpoint != transporttest.Challenge {
						return false
					}
					if fetches++; fetches <= empty {
						w.Header().Set("Content-Type", "application/json")
						fmt.Fprint(w, `{}`)
						return true
					}
					return false
				}
			})
			for range empty - 1 { // each asks once more
				f.token(http.StatusBadRequest)
			}
			f.server.Forget()
			for range 6 {
				f.token(http.StatusOK)
			}
			if fetches != empty+1 {
				t.Errorf("%d challenge requests, want %d", fetches, empty+1)
			}
			if n := f.server.Count(transporttest.Token); n != 7 {
				t.Errorf("%d token requests for 6, want 7", n)
			}
		})
	}
}
