// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// onceNonces makes the server take each DPoP nonce once only, and give one with
// each refusal.
func (f *fixture) onceNonces() {
	var mu sync.Mutex
	good, given := make(map[string]bool), 0
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint != transporttest.Token {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			if good[r.DPoP.Nonce] {
				delete(good, r.DPoP.Nonce)
				return false
			}
			given++
			nonce := fmt.Sprint("nonce ", given)
			good[nonce] = true
			w.Header().Set(transport.HeaderDPoPNonce, nonce)
			writeCode(w, "use_dpop_nonce")
			return true
		}
	})
}

func writeCode(w http.ResponseWriter, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"error":%q}`, code)
}

// TestC44RetrysNonceIsItsOwn: nobody else uses up the nonce of a refusal before
// the one retry that it is for.
func TestC44RetrysNonceIsItsOwn(t *testing.T) {
	for _, combined := range []bool{false, true} {
		t.Run(fmt.Sprintf("combined=%v", combined), func(t *testing.T) {
			f := newFixture(t, policy{Combined: combined}, withDPoP)
			f.onceNonces()
			var once sync.Once
			gate := f.server.Gate()
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Token && r.DPoP.Nonce != "" {
						once.Do(func() { gate.Hold(r) })
					}
				}
			})
			end := f.start(t.Context())
			retry := gate.Arrived()
			f.server.Set(func(p *policy) { p.Before = nil })
			f.token(http.StatusOK)
			gate.Open()
			if err := <-end; err != nil {
				t.Errorf("%v; the server saw:\n%s", err, f.history())
			}
			uses := 0
			for _, r := range f.server.Requests(transporttest.Token) {
				if r.DPoP.Nonce == retry.DPoP.Nonce {
					uses++
				}
			}
			if uses != 1 {
				t.Errorf("the nonce of the refusal was sent %d times", uses)
			}
			if failed := f.together(16, 10); failed != 0 {
				t.Errorf("%d requests failed", failed)
			}
		})
	}
}

// TestOptionalNonceIsNotWaitedFor: where the challenge endpoint is asked for a
// nonce alone, its failure is logged and costs one request. Refusals bring the
// nonce, if there is any (C44).
func TestOptionalNonceIsNotWaitedFor(t *testing.T) {
	tests := []struct {
		name    string
		answer  func(w http.ResponseWriter, stall <-chan struct{})
		waiting time.Duration
		asked   int
	}{
		{"503", func(w http.ResponseWriter, _ <-chan struct{}) { w.WriteHeader(http.StatusServiceUnavailable) }, 0, 1},
		{"no JSON", func(w http.ResponseWriter, _ <-chan struct{}) { fmt.Fprint(w, "<html>") }, 0, 1},
		{"cut", func(http.ResponseWriter, <-chan struct{}) { panic(http.ErrAbortHandler) }, 0, 1},
		// The second attempt begins after 5 s, and is replaced twice.
		{"stalls", func(_ http.ResponseWriter, stall <-chan struct{}) { <-stall }, 30 * time.Second, 4},
	}
	for _, nonces := range []bool{false, true} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s,nonces=%v", test.name, nonces), func(t *testing.T) {
				f := newFixture(t, policy{Combined: true, Nonces: nonces})
				synctest.Test(t, func(t *testing.T) {
					var log bytes.Buffer
					f.inProcess(func(c *transport.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
					stall := make(chan struct{})
					defer close(stall)
					f.server.Set(func(p *policy) {
						p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
							if r.Endpoint == transporttest.Challenge {
								test.answer(w, stall)
							}
							return r.Endpoint == transporttest.Challenge
						}
					})
					start := time.Now()
					for range 3 {
						f.want(http.StatusOK, f.request(t.Context()))
					}
					if waited := time.Since(start); waited > test.waiting {
						t.Errorf("waited %s", waited)
					}
					refused := 0
					if nonces {
						refused = 1
					}
					f.counts(3+refused, test.asked)
					if n := strings.Count(log.String(), "level=WARN"); n != 1 {
						t.Errorf("%d warnings:\n%s", n, log.String())
					}
				})
			})
		}
	}
	t.Run("cancelled", func(t *testing.T) {
		f := newFixture(t, policy{Combined: true})
		synctest.Test(t, func(t *testing.T) {
			f.inProcess()
			stall := make(chan struct{})
			defer close(stall)
			f.server.Set(func(p *policy) {
				p.Before = func(r transporttest.Request) {
					if r.Endpoint == transporttest.Challenge {
						<-stall
					}
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			end := f.start(ctx)
			synctest.Wait()
			cancel()
			if err := <-end; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			f.counts(0, 1)
		})
	})
	t.Run("unattested resource", func(t *testing.T) {
		f := newFixture(t, policy{})
		var got *http.Request
		asked := 0
		f.Transport = f.another(func(c *transport.Config) {
			c.Resources = []transport.Resource{{Identifier: "https://rs.example/api", ChallengeEndpoint: "https://rs.example/challenge", Unattested: true}}
			answer := recording(&got)
			c.Base = roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/challenge" {
					asked++
					return nil, errTest
				}
				return answer.RoundTrip(req)
			})
		})
		req := get(t, "https://rs.example/api/x")
		req.Header.Set("Authorization", "DPoP t")
		for range 2 {
			f.want(http.StatusOK, req)
		}
		if asked != 1 || got.Header.Get("DPoP") == "" {
			t.Errorf("asked %d times, then sent with %v", asked, got.Header)
		}
	})
}

// TestChallengeIsNotOptional: without the challenge that a PoP needs, nothing is
// sent, every time.
func TestChallengeIsNotOptional(t *testing.T) {
	for name, edit := range map[string]func(*transport.Config){
		"PoP":             func(*transport.Config) {},
		"DPoP beside PoP": withDPoP,
		"draft-10, combined mode": func(c *transport.Config) {
			c.Servers[0].Method, c.Servers[0].Profile = transport.MethodDPoP, transport.ProfileDraft10
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policy{}, edit)
			f.server.Set(func(p *policy) {
				p.Intercept = func(w http.ResponseWriter, _ transporttest.Request) bool {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
			})
			for range 2 {
				err := f.fail(f.request(t.Context()))
				if own := (*transport.Error)(nil); !errors.As(err, &own) || own.Step != "get challenge" {
					t.Errorf("error %v", err)
				}
			}
			f.counts(0, 2)
		})
	}
}

// TestRetriesForBoth: a request that was refused once for its challenge and once for
// its nonce has no retry left for either. Its last send has a challenge that the
// server cannot have used up, and the nonce that was just given.
func TestRetriesForBoth(t *testing.T) {
	f := newFixture(t, policy{}, withDPoP)
	sends := 0
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint != transporttest.Token {
				return false
			}
			switch sends++; {
			case sends == 1:
				w.Header().Set(transport.HeaderChallenge, "of the refusal")
				writeCode(w, "use_attestation_challenge")
			case sends == 2:
				w.Header().Set(transport.HeaderDPoPNonce, "of the refusal")
				writeCode(w, "use_dpop_nonce")
			case r.PoP.Challenge == "of the refusal" || r.DPoP.Nonce != "of the refusal":
				writeCode(w, "use_attestation_challenge")
			default:
				w.WriteHeader(http.StatusOK)
			}
			return true
		}
	})
	f.token(http.StatusOK)
	f.counts(3, 2)
}

// TestNonceIsKeptForTheRetry: with a server that takes each nonce once, a refusal for
// the challenge alone has not used up the nonce, and there is no other.
func TestNonceIsKeptForTheRetry(t *testing.T) {
	f := newFixture(t, policy{}, withDPoP)
	f.onceNonces()
	f.token(http.StatusOK)
	f.token(http.StatusOK) // which learns that each nonce is good for one
	refused, nonces := false, []string{}
	f.server.Set(func(p *policy) {
		p.Intercept = func(w http.ResponseWriter, r transporttest.Request) bool {
			if r.Endpoint != transporttest.Token {
				return false
			}
			nonces = append(nonces, r.DPoP.Nonce)
			if !refused {
				refused = true
				w.Header().Set(transport.HeaderDPoPNonce, "spare")
				w.Header().Set(transport.HeaderChallenge, "another")
				writeCode(w, "use_attestation_challenge")
				return true
			}
			w.WriteHeader(http.StatusOK)
			return true
		}
	})
	f.token(http.StatusOK)
	if len(nonces) != 2 || nonces[1] != "spare" {
		t.Errorf("nonces %q, want the spare one for the retry", nonces)
	}
}
