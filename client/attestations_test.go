// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

var scopes atomic.Int64

// grant gets a token that the Client does not have yet.
func grant(ctx context.Context, c *client.Client) error {
	_, err := c.Token(ctx, fmt.Sprintf("scope-%d", scopes.Add(1)))
	return err
}

// sent returns the attestations of the token requests so far.
func sent(r *rig) (attestations []string) {
	for _, request := range r.Requests(transporttest.Token) {
		attestations = append(attestations, request.Attestation())
	}
	return attestations
}

func TestAttestationIsReusedC4(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	for range 10 {
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	calls := r.attester.calls()
	if len(calls) != 1 {
		t.Fatalf("attester asked %d times for 10 requests, want 1", len(calls))
	}
	if n := len(slices.Compact(sent(r))); n != 1 {
		t.Errorf("%d attestations were sent, want 1", n)
	}
	if got := calls[0]; got.ClientID != r.ClientID || got.Issuer != r.Issuer || got.Rejected != "" || got.Clock == nil || !slices.Equal(got.SigningAlgs, []string{"ES256"}) {
		t.Errorf("attester was asked %+v", got)
	}
	ours, _ := keystore.Thumbprint(c.Key().Public())
	if theirs, _ := keystore.Thumbprint(calls[0].Key.Public()); theirs != ours {
		t.Error("attester was asked for another key")
	}
}

func TestAttestationRenewalBeforeExpiry(t *testing.T) {
	const clients = 40
	early := 0 // renewed by 80 % of the life
	for range clients {
		inBubble(t, func(t *testing.T, r *rig) {
			c := r.client(t)
			renewed := func(after time.Duration) bool {
				t.Helper()
				r.clock.advance(after)
				before := sent(r)
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if after := sent(r); len(before) > 0 && after[len(after)-1] != before[len(before)-1] {
					t.Error("the request that starts a renewal has waited for it")
				}
				return len(r.attester.calls()) > 1
			}
			renewed(0)
			if renewed(42*time.Minute - time.Second) { // of an hour: 70 %
				t.Error("renewed before 70 % of the life")
			}
			if renewed(6 * time.Minute) {
				early++
			} else if !renewed(6*time.Minute + time.Second) {
				t.Error("not renewed at 90 % of the life")
			}
		})
	}
	if early == 0 || early == clients {
		t.Errorf("%d of %d clients renewed by 80 %% of the life, want some: they would all come together", early, clients)
	}
}

func TestAttestationRenewedInBackgroundIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		for _, advance := range []time.Duration{0, 55 * time.Minute, 0, 55 * time.Minute, 0} {
			r.clock.advance(advance)
			if err := grant(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		got := sent(r)
		same := []bool{got[0] == got[1], got[1] == got[2], got[2] == got[3], got[3] == got[4]}
		if !slices.Equal(same, []bool{true, false, true, false}) || len(r.attester.calls()) != 3 {
			t.Errorf("requests share attestations: %v, attester asked %d times", same, len(r.attester.calls()))
		}
		for i, call := range r.attester.calls() {
			if call.Rejected != "" {
				t.Errorf("call %d has something rejected", i)
			}
		}
	})
}

func TestAttestationWhileAttesterIsDown(t *testing.T) {
	for name, failure := range map[string]error{
		"unavailable": client.ErrAttesterUnavailable,
		"any error":   errors.New("out of paper"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				up := r.attester.attest
				c := r.client(t)
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) { return "", failure })
				r.clock.advance(55 * time.Minute)
				for range 30 { // to one second before the end
					if err := grant(t.Context(), c); err != nil {
						t.Fatalf("with a valid attestation: %v", err)
					}
					synctest.Wait()
					r.clock.advance(10 * time.Second)
				}
				if calls := len(r.attester.calls()); calls != 6 {
					t.Errorf("attester asked %d times, want 6: at first and each minute", calls)
				}
				if n := len(slices.Compact(sent(r))); n != 1 {
					t.Errorf("%d attestations sent, want 1", n)
				}

				before := r.total() // now it has expired
				if err := grant(t.Context(), c); !errors.Is(err, failure) {
					t.Errorf("with an expired attestation: %v, want the attester's error", err)
				}
				if n := r.total() - before; n != 0 {
					t.Errorf("%d requests sent with an expired attestation", n)
				}

				r.attester.set(up)
				if err := grant(t.Context(), c); err != nil {
					t.Errorf("the attester is back: %v", err)
				}
			})
		})
	}
}

// TestAttesterSaysWhenToAskAgain: Retry-After holds for all requests, and not
// longer because the clock is set back.
func TestAttesterSaysWhenToAskAgain(t *testing.T) {
	type step struct {
		after time.Duration // since the step before
		calls int           // in all, after three requests
	}
	for name, test := range map[string]struct {
		answer client.AttesterError
		warm   bool // there is a valid attestation
		steps  []step
	}{
		"unavailable":          {client.AttesterError{Status: 503, RetryAfter: 10 * time.Minute}, false, []step{{0, 1}, {599 * time.Second, 1}, {time.Second, 2}, {0, 2}}},
		"too many requests":    {client.AttesterError{Status: 429, RetryAfter: 5 * time.Second}, false, []step{{0, 1}, {4 * time.Second, 1}, {time.Second, 2}}},
		"refused":              {client.AttesterError{Status: 403, RetryAfter: 10 * time.Minute}, false, []step{{0, 1}, {599 * time.Second, 1}, {time.Second, 2}}},
		"clock set back":       {client.AttesterError{Status: 503, RetryAfter: 10 * time.Minute}, false, []step{{0, 1}, {-time.Hour, 2}, {time.Minute, 2}}},
		"not said":             {client.AttesterError{Status: 503}, false, []step{{0, 3}, {time.Second, 6}}},
		"with a valid one":     {client.AttesterError{Status: 503, RetryAfter: 4 * time.Minute}, true, []step{{55 * time.Minute, 2}, {3 * time.Minute, 2}, {time.Minute, 3}}},
		"until that ends, too": {client.AttesterError{Status: 503, RetryAfter: 10 * time.Minute}, true, []step{{55 * time.Minute, 2}, {6 * time.Minute, 2}, {4 * time.Minute, 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				c := r.client(t)
				if test.warm {
					if err := grant(t.Context(), c); err != nil {
						t.Fatal(err)
					}
				}
				expiry := r.clock.now().Add(time.Hour)
				up := r.attester.attest
				r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) { return "", &test.answer })
				for i, step := range test.steps {
					r.clock.advance(step.after)
					for range 3 {
						err := grant(t.Context(), c)
						valid := test.warm && r.clock.now().Before(expiry)
						var answer *client.AttesterError
						if (err == nil) != valid || err != nil && !errors.As(err, &answer) {
							t.Errorf("step %d: %v, want the attester's error unless there is a valid attestation: %t", i, err, valid)
						}
						synctest.Wait()
					}
					if n := len(r.attester.calls()); n != step.calls {
						t.Errorf("step %d: attester asked %d times in all, want %d", i, n, step.calls)
					}
				}
				r.attester.set(up)
				r.clock.advance(time.Hour)
				for range 2 {
					if err := grant(t.Context(), c); err != nil {
						t.Errorf("the attester is back: %v", err)
					}
				}
			})
		})
	}
}
