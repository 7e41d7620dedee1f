// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestRenewalByAge: a device that is started again and again renews its attestation
// ahead of its end, and when it would have without.
func TestRenewalByAge(t *testing.T) {
	const life, step = 24 * time.Hour, 15 * time.Minute
	for range 3 {
		inBubble(t, func(t *testing.T, r *rig) {
			r.Attester.Lifetime = life
			key, first, start := newKey(t, "ES256"), "", r.clock.now()
			// renewed returns after what time the attester is asked for the second one.
			renewed := func(restarts bool) time.Duration {
				r.clock.advance(start.Sub(r.clock.now()))
				attester := &testAttester{attest: func(_ context.Context, req client.AttestRequest, call int) (string, error) {
					if call == 1 && first != "" {
						return first, nil
					}
					return r.Attester.Attest(req.Key.Public()), nil
				}}
				cache := newMemoryCache()
				device := func() *client.Client {
					return r.client(t, func(cfg *client.Config) {
						cfg.Key, cfg.Store, cfg.Cache, cfg.Attester = key, nil, cache, attester
					})
				}
				c := device()
				for {
					if err := grant(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					age := r.clock.now().Sub(start)
					if len(attester.calls()) > 1 || age >= life {
						c.Close()
						return age
					}
					if first == "" {
						first = sent(r)[0]
					}
					r.clock.advance(step)
					if restarts {
						c.Close()
						c = device()
					}
				}
			}
			with, without := renewed(true), renewed(false)
			if with < life*70/100 || with > life*90/100+step {
				t.Errorf("renewed after %v, want 70 to 90 %% of %v", with, life)
			}
			if with != without {
				t.Errorf("renewed after %v with restarts, %v without", with, without)
			}
		})
	}
}

func TestRenew(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.client(t)
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		up, release := r.attester.attest, make(chan struct{})
		r.attester.set(func(ctx context.Context, req client.AttestRequest, call int) (string, error) {
			<-release
			return up(ctx, req, call)
		})
		const callers = 8
		results := make(chan error, callers)
		for range callers {
			go func() { results <- c.Renew(t.Context()) }()
		}
		synctest.Wait()
		if err := grant(t.Context(), c); err != nil { // with the old one, meanwhile
			t.Error(err)
		}
		close(release)
		for range callers {
			if err := <-results; err != nil {
				t.Errorf("Renew: %v", err)
			}
		}
		if err := grant(t.Context(), c); err != nil {
			t.Error(err)
		}
		if n := len(r.attester.calls()); n != 2 {
			t.Errorf("attester asked %d times for %d callers, want once more", n, callers)
		}
		if got := sent(r); len(got) != 3 || got[1] != got[0] || got[2] == got[1] {
			t.Error("the new attestation is not the one that is used after Renew, or before")
		}
	})
}

func TestRenewFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		cache := newMemoryCache()
		c := r.client(t, func(cfg *client.Config) { cfg.Cache = cache })
		if err := grant(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		up := r.attester.attest
		want := func(err, cause error) {
			t.Helper()
			var failure *transport.Error
			if !errors.Is(err, cause) || !errors.As(err, &failure) || failure.Step != transport.StepAttestation || failure.Audience != r.Issuer {
				t.Errorf("error %v, want a *transport.Error of StepAttestation with %v", err, cause)
			}
		}
		r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
			return "", client.ErrAttesterUnavailable
		})
		want(c.Renew(t.Context()), client.ErrAttesterUnavailable)
		if err := grant(t.Context(), c); err != nil {
			t.Errorf("with the old attestation: %v", err)
		}
		if got := sent(r); got[1] != got[0] || cache.size() != 1 {
			t.Errorf("the old attestation is gone, %d in the cache", cache.size())
		}

		r.attester.set(func(ctx context.Context, _ client.AttestRequest, _ int) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		want(c.Renew(ctx), context.DeadlineExceeded)
		waits := make(chan error, 1)
		go func() { waits <- c.Renew(t.Context()) }()
		synctest.Wait()
		c.Close()
		if err := <-waits; !errors.Is(err, client.ErrClosed) {
			t.Errorf("Close while Renew waits: %v, want ErrClosed", err)
		}
		r.attester.set(up)
		calls := len(r.attester.calls())
		if err := c.Renew(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("Renew after Close: %v, want ErrClosed", err)
		}
		if n := len(r.attester.calls()) - calls; n != 0 {
			t.Errorf("attester asked %d times after Close", n)
		}
	})
}

// TestRenewDoesNotWaitForAPause: the operator knows why the attester is to be asked now.
func TestRenewDoesNotWaitForAPause(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	c := r.client(t)
	up := r.attester.attest
	r.attester.set(func(context.Context, client.AttestRequest, int) (string, error) {
		return "", &client.AttesterError{Status: 403, Code: "unknown_device"}
	})
	for range 2 {
		if err := grant(t.Context(), c); !errors.Is(err, client.ErrAttestationRefused) {
			t.Fatal(err)
		}
	}
	r.attester.set(up)
	if err := c.Renew(t.Context()); err != nil {
		t.Errorf("Renew: %v", err)
	}
	if err := grant(t.Context(), c); err != nil || len(r.attester.calls()) != 2 {
		t.Errorf("after Renew: %v, attester asked %d times", err, len(r.attester.calls()))
	}
}

func TestDropAttestation(t *testing.T) {
	r := newRig(t, transporttest.Policy{})
	cache := newMemoryCache()
	withCache := func(cfg *client.Config) { cfg.Cache = cache }
	c := r.client(t, withCache)
	if err := grant(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	calls := func(want int) {
		t.Helper()
		if n := len(r.attester.calls()); n != want {
			t.Errorf("attester asked %d times, want %d", n, want)
		}
	}
	if err := c.DropAttestation(t.Context()); err != nil || cache.size() != 0 {
		t.Errorf("%v, %d in the cache", err, cache.size())
	}
	calls(1) // not now
	if err := grant(t.Context(), c); err != nil {
		t.Error(err)
	}
	calls(2)
	if got := sent(r); got[1] == got[0] {
		t.Error("the old attestation was sent")
	}

	if err := c.DropAttestation(t.Context()); err != nil {
		t.Error(err)
	}
	restarted := r.client(t, withCache)
	if err := restarted.DropAttestation(t.Context()); err != nil { // there is none
		t.Error(err)
	}
	if err := grant(t.Context(), restarted); err != nil {
		t.Error(err)
	}
	calls(3)

	// Before the first request, the one in the cache is not used either.
	again := r.client(t, withCache)
	if err := again.DropAttestation(t.Context()); err != nil {
		t.Error(err)
	}
	if err := grant(t.Context(), again); err != nil {
		t.Error(err)
	}
	calls(4)

	cache.fail = errors.New("read-only")
	if err := again.DropAttestation(t.Context()); !errors.Is(err, cache.fail) {
		t.Errorf("error %v, want the cache's", err)
	}
}
