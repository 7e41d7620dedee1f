// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

func TestFreshAttestation(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	first := sent(r)[0]
	r.Deny(first)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	calls := r.attester.calls()
	if len(calls) != 2 || calls[1].Rejected != first {
		t.Fatalf("attester asked %d times, want once more with the rejected one", len(calls))
	}
	before, _ := keystore.Thumbprint(calls[0].Key.Public())
	if after, _ := keystore.Thumbprint(calls[1].Key.Public()); after != before {
		t.Error("asked for another key C38")
	}
	attestations := sent(r)
	if len(attestations) != 3 || attestations[1] != first || attestations[2] == first {
		t.Errorf("%d token requests, want three, the last with the new attestation", len(attestations))
	}
	if err := grant(t.Context(), c); err != nil {
		t.Error(err)
	}
	if got := sent(r); len(got) != 4 || got[3] != got[2] || len(r.attester.calls()) != 2 {
		t.Error("the new attestation is not used on")
	}
}

func TestFreshAttestationSameAgain(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	first := sent(r)[0]
	r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) { return first, nil })
	r.Deny(first)
	before := len(sent(r))
	err := grant(t.Context(), c)
	var failure *transport.Error
	if !errors.Is(err, client.ErrInvalidAttestation) || !errors.As(err, &failure) || failure.Step != "prepare retry" {
		t.Errorf("error %v, want ErrInvalidAttestation at step \"prepare retry\"", err)
	}
	if n := len(sent(r)) - before; n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	if n := len(r.attester.calls()); n != 2 {
		t.Errorf("attester asked %d times, want 2", n)
	}
}

func TestFreshAttestationRefusedTwice(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		attestation := r.Attester.Attest(req.Key.Public())
		r.Deny(attestation)
		return attestation, nil
	})
	c := r.client(t)
	err := grant(t.Context(), c)
	var failure *transport.Error
	if !errors.As(err, &failure) || failure.Code != "use_fresh_attestation" || failure.Send != 2 {
		t.Errorf("error %v, want the server's refusal of the second send", err)
	}
	if n := len(r.attester.calls()); n != 2 {
		t.Errorf("attester asked %d times, want 2", n)
	}
}

func TestFreshAttestationWhileAttesterIsDown(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	first := sent(r)[0]
	r.Deny(first)
	r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
		return "", client.ErrAttesterUnavailable
	})
	for range 3 {
		before := len(sent(r))
		if err := grant(t.Context(), c); !errors.Is(err, client.ErrAttesterUnavailable) {
			t.Errorf("error %v, want ErrAttesterUnavailable", err)
		}
		// This server may take it again: what it refuses is its own policy.
		if n := len(sent(r)) - before; n != 1 {
			t.Errorf("%d token requests, want 1", n)
		}
	}
}

func TestFreshAttestationDuringRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		first := sent(r)[0]
		r.clock.advance(55 * time.Minute)
		r.Deny(first)
		release := make(chan struct{})
		r.attester.set(func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
			if req.Rejected == "" {
				<-release // the renewal in the background, which brings nothing new
				return first, nil
			}
			return r.Attester.Attest(req.Key.Public()), nil
		})
		result := make(chan error, 1)
		go func() { result <- grant(t.Context(), c) }()
		synctest.Wait()
		close(release)
		if err := <-result; err != nil {
			t.Errorf("a renewal of somebody who was not refused has counted: %v", err)
		}
		calls := r.attester.calls()
		if len(calls) != 3 || calls[2].Rejected != first {
			t.Errorf("attester asked %d times, want once more with the rejected one", len(calls))
		}
	})
}

func TestAttestationRefusalStopsUse(t *testing.T) {
	refuse := func(context.Context, client.AttestRequest, int) (string, error) {
		return "", &client.AttesterError{Status: 403, Code: "policy_violation"}
	}
	for name, begin := range map[string]func(*testing.T, *rig, *client.Client){
		"at renewal": func(t *testing.T, r *rig, c *client.Client) {
			r.clock.advance(55 * time.Minute)
			if err := grant(t.Context(), c); err != nil {
				t.Errorf("the request that starts the renewal: %v", err)
			}
			synctest.Wait()
		},
		"when the server wants a fresh one": func(t *testing.T, r *rig, c *client.Client) {
			r.Deny(sent(r)[0])
			if err := grant(t.Context(), c); !errors.Is(err, client.ErrAttestationRefused) {
				t.Errorf("error %v, want ErrAttestationRefused", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				cache := newMemoryCache()
				c := r.client(t, func(cfg *client.Config) { cfg.Cache = cache })
				up := r.attester.attest
				if err := grant(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				r.attester.set(refuse)
				begin(t, r, c)
				if n := cache.size(); n != 0 {
					t.Errorf("%d entries in the cache: a restart would use them", n)
				}
				total := r.total()
				for i, step := range []struct {
					after time.Duration
					calls int // in all, before it two
				}{{0, 2}, {59 * time.Second, 2}, {2 * time.Second, 3}, {59 * time.Second, 3}, {2 * time.Second, 4}} {
					r.clock.advance(step.after)
					if err := grant(t.Context(), c); !errors.Is(err, client.ErrAttestationRefused) {
						t.Errorf("step %d: %v, want ErrAttestationRefused", i, err)
					}
					synctest.Wait()
					if n := len(r.attester.calls()); n != step.calls {
						t.Errorf("step %d: attester asked %d times, want %d", i, n, step.calls)
					}
				}
				if n := r.total() - total; n != 0 {
					t.Errorf("%d requests sent by a refused instance, want 0", n)
				}
				r.attester.set(up)
				r.clock.advance(61 * time.Second)
				if err := grant(t.Context(), c); err != nil {
					t.Errorf("the attester has changed its mind: %v", err)
				}
			})
		})
	}
}
