// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestPrepare: the first request after it does not wait for the key.
func TestPrepare(t *testing.T) {
	for name, test := range pacedPolicies {
		t.Run(name, func(t *testing.T) {
			edit := test.edit
			if edit == nil {
				edit = func(*aheadRig, *transport.Config) {}
			}
			signingAhead(t, test.policy, func(r *aheadRig) {
				const callers = 8
				var wg sync.WaitGroup
				start := time.Now()
				for range callers {
					wg.Go(func() {
						if err := r.Prepare(r.request(r.t.Context())); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if took, want := time.Since(start), chipTime*time.Duration(test.proofs); took != want {
					t.Errorf("%d callers waited %s, want %s", callers, took, want)
				}
				r.wants(test.proofs, 0)
				if n := r.server.Count(transporttest.Token); n != 0 {
					t.Errorf("%d requests were sent", n)
				}
				if test.refused > 0 && r.server.Count(transporttest.Challenge) == 0 {
					return // there was no way to get a challenge, so that the proof is refused
				}
				if took := r.takes(); took != 0 {
					t.Errorf("the request took %s", took)
				}
				r.wants(test.proofs, 0)
			}, edit)
		})
	}
}

// TestPrepareAgain replaces a proof that has less than half of its time before it.
func TestPrepareAgain(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		prepare := func() {
			if err := r.Prepare(r.request(r.t.Context())); err != nil {
				t.Error(err)
			}
		}
		prepare()
		time.Sleep(ahead / 4)
		prepare()
		r.wants(1, 0)
		time.Sleep(ahead / 2)
		prepare()
		r.wants(2, 1)
		time.Sleep(ahead - time.Second) // by whole seconds, as servers see it
		if took := r.takes(); took != 0 {
			t.Errorf("took %s", took)
		}
		time.Sleep(50 * time.Millisecond) // one is being signed in the background
		prepare()
		r.wants(3, 1)
	})
}

// TestPrepareAsksForAPIN, unlike what is done in the background.
func TestPrepareAsksForAPIN(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.key.refuse.Store(true)
		r.takes()
		time.Sleep(settled) // it is being signed in the background, in vain
		if err := r.Prepare(r.request(r.t.Context())); err != nil {
			t.Error(err)
		}
		if took := r.takes(); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}

// settled is when a proof is begun after a response.
const settled = 10 * time.Millisecond

func TestPrepareFails(t *testing.T) {
	for name, edit := range map[string]func(*transport.Config){
		"SignAhead is zero": func(c *transport.Config) { c.SignAhead = 0 },
		"bound bodies":      func(c *transport.Config) { c.BindBody = true },
		"claims":            func(c *transport.Config) { c.Claims = func(*http.Request) (map[string]any, error) { return nil, nil } },
	} {
		signingAhead(t, policy{}, func(r *aheadRig) {
			if err := r.Prepare(r.request(r.t.Context())); !errors.Is(err, transport.ErrSignAhead) {
				t.Errorf("%s: %v, want ErrSignAhead", name, err)
			}
			r.wants(0, 0)
		}, func(_ *aheadRig, c *transport.Config) { edit(c) })
	}
	signingAhead(t, policy{}, func(r *aheadRig) {
		bound := transport.BindMessage(r.t.Context(), []byte("a message"))
		if err := r.Prepare(r.request(bound)); !errors.Is(err, transport.ErrSignAhead) {
			t.Errorf("a bound message: %v, want ErrSignAhead", err)
		}
		r.wants(0, 0)
	})
	signingAhead(t, policy{}, func(r *aheadRig) {
		failed := func(err, cause error, step transport.Step) {
			t.Helper()
			var failure *transport.Error
			if !errors.Is(err, cause) || !errors.As(err, &failure) || failure.Step != step {
				t.Errorf("%v, want %v of step %q", err, cause, step)
			}
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), chipTime/2)
		defer cancel()
		failed(r.Prepare(r.request(ctx)), context.DeadlineExceeded, transport.StepSign)
		failed(r.Prepare(r.request(ctx)), context.DeadlineExceeded, transport.StepAttestation)
		other, _ := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "https://other.example", nil)
		if err := r.Prepare(other); err != nil || r.key.signed.Load() != 1 {
			t.Errorf("for another place: %v, %d signatures", err, r.key.signed.Load())
		}
		time.Sleep(chipTime)
		done := make(chan error)
		go func() { done <- r.Prepare(r.request(r.t.Context())) }()
		time.Sleep(chipTime / 2)
		r.Close()
		if err := <-done; !errors.Is(err, transport.ErrClosed) {
			t.Errorf("Close meanwhile: %v", err)
		}
		if err := r.Prepare(r.request(r.t.Context())); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
	signingAhead(t, policy{}, func(r *aheadRig) {
		if err := r.Prepare(r.request(r.t.Context())); !errors.Is(err, keystore.ErrPolicy) {
			t.Errorf("%v, want the key's error", err)
		}
	}, func(r *aheadRig, c *transport.Config) { c.Key = failingKey{r.key, keystore.ErrPolicy} })
}

// TestPrepareMeanwhile: tables that are replaced while a proof is signed have it signed
// for the new one.
func TestPrepareMeanwhile(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		done := make(chan error)
		go func() { done <- r.Prepare(r.request(r.t.Context())) }()
		time.Sleep(chipTime / 2)
		if err := r.Update([]transport.Server{r.server.Transport()}, nil); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := r.takes(); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}
