// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// callBad has the token endpoint answer with code to each request with an attestation
// that is bad.
func (r *rig) callBad(code string, bad func(attestation string) bool) {
	r.Set(func(p *transporttest.Policy) {
		p.Intercept = func(w http.ResponseWriter, request transporttest.Request) bool {
			if request.Endpoint != transporttest.Token || !bad(request.Attestation()) {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"` + code + `"}`))
			return true
		}
	})
}

func all(string) bool { return true }

// doubtCodes are what servers answer to an attestation that they find bad (draft,
// "Error Responses").
var doubtCodes = []string{"invalid_client_attestation", "invalid_client"}

// TestAttestationCalledBadIsReplaced (N4): the request fails as it is, and the next one
// has another attestation.
func TestAttestationCalledBadIsReplaced(t *testing.T) {
	for _, code := range doubtCodes {
		t.Run(code, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				c := r.client(t)
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				first := sent(r)[0]
				r.callBad(code, func(attestation string) bool { return attestation == first })
				if err := grant(t.Context(), c); err == nil {
					t.Fatal("no error")
				}
				if sends, calls := len(sent(r)), len(r.attester.calls()); sends != 2 || calls != 1 {
					t.Errorf("%d token requests, attester asked %d times, want 2 and 1: no retry", sends, calls)
				}
				for range 3 {
					if err := grant(t.Context(), c); err != nil {
						t.Errorf("with a new attestation: %v", err)
					}
				}
				calls := r.attester.calls()
				if len(calls) != 2 || calls[1].Rejected != first {
					t.Errorf("attester asked %d times, want once more with the bad one", len(calls))
				}
			})
		})
	}
}

// TestAttestationCalledBadWithoutAnother (N4): the attester is asked once a minute at the
// most, whether it has another one or not, and the last one it gave is used on.
func TestAttestationCalledBadWithoutAnother(t *testing.T) {
	for name, down := range map[string]bool{"attester down": true, "a new one is bad, too": false} {
		for _, code := range doubtCodes {
			t.Run(name+"/"+code, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					c := r.client(t)
					up := r.attester.attest
					if err := grant(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					r.callBad(code, all)
					if down {
						r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
							return "", client.ErrAttesterUnavailable
						})
					}
					for i := range 120 { // each second
						if err := grant(t.Context(), c); err == nil || errors.Is(err, client.ErrAttesterUnavailable) {
							t.Fatalf("request %d: %v, want the server's refusal", i, err)
						}
						synctest.Wait()
						r.clock.advance(time.Second)
					}
					if n := len(r.attester.calls()); n != 3 {
						t.Errorf("attester asked %d times, want 3: at first and twice in two minutes", n)
					}
					if n := len(sent(r)); n != 121 {
						t.Errorf("%d token requests, want 121, one each", n)
					}
					if n := len(slices.Compact(sent(r))); down && n != 1 {
						t.Errorf("%d attestations, want the old one alone", n)
					}

					r.callBad(code, func(string) bool { return false })
					r.attester.set(up)
					before := len(r.attester.calls())
					for range 3 {
						if err := grant(t.Context(), c); err != nil {
							t.Errorf("the server has changed its mind: %v", err)
						}
						r.clock.advance(61 * time.Second)
					}
					if n := len(r.attester.calls()) - before; n > 1 {
						t.Errorf("attester asked %d times about an attestation that is good", n)
					}
				})
			})
		}
	}
}

// TestBadAttestationInTheCache (N4): one that was damaged there costs one request, in all
// restarts.
func TestBadAttestationInTheCache(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.Attester.Lifetime = 24 * time.Hour
	cache := newMemoryCache()
	withCache := func(cfg *client.Config) { cfg.Cache = cache }
	if err := grant(t.Context(), r.client(t, withCache)); err != nil {
		t.Fatal(err)
	}
	damaged := []byte(sent(r)[0])
	if at := len(damaged) - 10; damaged[at] == 'A' {
		damaged[at] = 'B'
	} else {
		damaged[at] = 'A'
	}
	cache.replace(string(damaged))
	failed := 0
	for range 3 {
		c := r.client(t, withCache)
		for range 10 {
			if err := grant(t.Context(), c); err != nil {
				failed++
			}
		}
		c.Close()
	}
	if n := len(r.attester.calls()); failed != 1 || n != 2 {
		t.Errorf("%d of 30 requests failed, attester asked %d times, want 1 and 2", failed, n)
	}
}

// TestNeverFreshEnough (N8): the attester, whose evidence may take a TPM seconds, is not
// asked by each request to a server that finds no attestation fresh.
func TestNeverFreshEnough(t *testing.T) {
	for name, each := range map[string]time.Duration{"at once": 0, "within a minute": time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.callBad("use_fresh_attestation", all)
				c := r.client(t)
				for i := range 50 {
					if err := grant(t.Context(), c); err == nil {
						t.Fatalf("request %d: no error", i)
					}
					r.clock.advance(each)
				}
				if n := len(r.attester.calls()); n != 2 {
					t.Errorf("attester asked %d times for 50 requests, want 2", n)
				}
				if n := len(sent(r)); n > 51 {
					t.Errorf("%d token requests for 50, want no more than 51", n)
				}
				r.clock.advance(time.Minute)
				for range 10 {
					_ = grant(t.Context(), c)
				}
				if n := len(r.attester.calls()); n != 3 {
					t.Errorf("attester asked %d times, want once more after a minute", n)
				}
				r.callBad("", func(string) bool { return false })
				if err := grant(t.Context(), c); err != nil {
					t.Errorf("the server has changed its mind: %v", err)
				}
			})
		})
	}
}
