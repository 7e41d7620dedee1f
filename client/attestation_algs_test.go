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
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// An algsRig is a server that takes attestations of ES256 only, and a resource
// with a list of its own.
type algsRig struct {
	*apiRig
	t  *testing.T
	at []string // attestations that came to the resource
}

func newAlgsRig(t *testing.T, r *rig, resourceAlgs []string, edits ...func(*client.Config)) *algsRig {
	a := &algsRig{apiRig: newAPIRig(t, r, edits...), t: t}
	a.site.set(apiWellKnown, text(resourceDocument(map[string]any{"client_attestation_signing_alg_values_supported": resourceAlgs})))
	a.site.set(api, func(_ http.ResponseWriter, req *http.Request) {
		a.at = append(a.at, req.Header.Get(transport.HeaderAttestation))
	})
	return a
}

// both sends a request to the server and one to the resource.
func (a *algsRig) both() (resource error) {
	a.t.Helper()
	if err := grant(a.t.Context(), a.Client); err != nil {
		a.t.Fatal(err)
	}
	return a.get(a.t.Context(), "Bearer token")
}

// byList is an attester that has ES384 for those who take nothing else.
func (r *rig) byList(t *testing.T) func(context.Context, client.AttestRequest, int) (string, error) {
	other := newKey(t, "ES384")
	return func(_ context.Context, req client.AttestRequest, _ int) (string, error) {
		if !slices.Equal(req.SigningAlgs, []string{"ES384"}) {
			return r.Attester.Attest(req.Key.Public()), nil
		}
		return forge(t, req.Key, r.clock.now(), forgery{
			claims: map[string]any{"sub": r.ClientID},
			key:    keystore.SigningKey(context.Background(), other),
		}), nil
	}
}

// TestAttestationFitsEachServerC7: what one accepts is not sent to another that
// does not list its algorithm, and they do not take it from each other.
func TestAttestationFitsEachServerC7(t *testing.T) {
	for name, test := range map[string]struct {
		algs  []string // of the resource
		calls int      // of the attester, for each life of an attestation
	}{
		"another algorithm": {[]string{"ES384"}, 2},
		"the same":          {[]string{"ES256"}, 1},
		"both":              {[]string{"ES384", "ES256"}, 1},
		"not said":          {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.attester.set(r.byList(t))
				a := newAlgsRig(t, r, test.algs)
				for life := range 3 {
					for range 10 {
						if err := a.both(); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					if n := len(r.attester.calls()); n != test.calls*(life+1) {
						t.Errorf("attester asked %d times in life %d, want %d for each", n, life, test.calls)
					}
					r.clock.advance(55 * time.Minute) // to be renewed
				}
				if same := a.at[0] == sent(r)[0]; same != (test.calls == 1) {
					t.Errorf("the resource got the server's attestation: %t", same)
				}
			})
		})
	}
}

// TestAttesterWithoutTheAlgorithmC7: it is not asked with each request, and the
// server's attestation is renewed as ever.
func TestAttesterWithoutTheAlgorithmC7(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := newAlgsRig(t, r, []string{"ES384"})
		for i, step := range []struct {
			after time.Duration
			calls int // in all
		}{{0, 2}, {59 * time.Second, 2}, {time.Second, 3}, {54 * time.Minute, 5}} {
			r.clock.advance(step.after)
			for range 5 {
				if err := a.both(); !errors.Is(err, client.ErrInvalidAttestation) {
					t.Errorf("step %d: %v, want ErrInvalidAttestation", i, err)
				}
				synctest.Wait()
			}
			if n := len(r.attester.calls()); n != step.calls {
				t.Errorf("step %d: attester asked %d times in all, want %d", i, n, step.calls)
			}
		}
		if len(a.at) != 0 {
			t.Errorf("%d requests came to the resource, want none", len(a.at))
		}
		r.attester.set(r.byList(t))
		r.clock.advance(time.Minute)
		if err := a.both(); err != nil {
			t.Errorf("the attester has it now: %v", err)
		}
	})
}

// TestRejectedAttestationIsNotReplacedByOlder: one of another algorithm is no
// fresher for being another.
func TestRejectedAttestationIsNotReplacedByOlder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.attester.set(r.byList(t))
		r.edit(transporttest.Metadata, func(m map[string]any) { delete(m, "client_attestation_signing_alg_values_supported") })
		a := newAlgsRig(t, r, []string{"ES384"})
		if err := a.get(t.Context(), "Bearer token"); err != nil {
			t.Fatal(err)
		}
		r.clock.advance(55 * time.Minute)
		_ = grant(t.Context(), a.Client) // with the resource's, while another one is got
		synctest.Wait()
		if err := grant(t.Context(), a.Client); err != nil {
			t.Fatal(err)
		}
		newest := sent(r)[len(sent(r))-1]
		calls := len(r.attester.calls())
		r.Deny(newest)
		if err := grant(t.Context(), a.Client); err != nil {
			t.Error(err)
		}
		if n := len(r.attester.calls()) - calls; n != 1 {
			t.Errorf("attester asked %d times for a fresh one, want 1", n)
		}
	})
}

// TestAttesterIsAskedOnceAtATime: also on behalf of servers with nothing in
// common.
func TestAttesterIsAskedOnceAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := newAlgsRig(t, r, []string{"ES384"})
		release := make(chan struct{})
		give := r.byList(t)
		r.attester.set(func(ctx context.Context, req client.AttestRequest, call int) (string, error) {
			<-release
			return give(ctx, req, call)
		})
		results := make(chan error, 2)
		go func() { results <- grant(t.Context(), a.Client) }()
		go func() { results <- a.get(t.Context(), "Bearer token") }()
		synctest.Wait()
		if n := len(r.attester.calls()); n != 1 {
			t.Errorf("%d calls of the attester at once", n)
		}
		close(release)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCachedAttestationMayBeAnothers: the cache is looked into once, and what the
// first server to be asked does not accept is kept for the next.
func TestCachedAttestationMayBeAnothers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.attester.set(r.byList(t))
		cached := func(cache client.Cache) func(*client.Config) {
			return func(cfg *client.Config) { cfg.Cache = cache }
		}
		cache := newMemoryCache()
		if err := grant(t.Context(), newAlgsRig(t, r, []string{"ES384"}, cached(cache)).Client); err != nil {
			t.Fatal(err)
		}
		again := newAlgsRig(t, r, []string{"ES384"}, cached(cache))
		if err := again.get(t.Context(), "Bearer token"); err != nil {
			t.Fatal(err)
		}
		if err := again.both(); err != nil {
			t.Fatal(err)
		}
		if n := len(r.attester.calls()); n != 2 {
			t.Errorf("attester asked %d times, want 2: for each algorithm", n)
		}
	})
}
