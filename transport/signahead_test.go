// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestSignAheadInVain: what changes between signature and request has the request made as
// without signing ahead. Nothing else is to be seen of it.
func TestSignAheadInVain(t *testing.T) {
	bound := func(req *http.Request) *http.Request {
		return req.WithContext(transport.BindMessage(req.Context(), []byte("message")))
	}
	for name, test := range map[string]struct {
		policy policy
		change func(*aheadRig)
		signed int // by the change itself
		why    string
	}{
		"it is too old": {policy{}, func(r *aheadRig) { time.Sleep(ahead + 1) }, 0, "too old"},
		"a newer challenge": {policy{Offer: transporttest.OfferAlways}, func(r *aheadRig) {
			r.server.Rotate()
			r.takes(bound) // it is refused once
		}, 2, "newer challenge"},
		"another attestation": {policy{}, func(r *aheadRig) {
			current, _ := r.source.Attestation(r.t.Context(), "", nil)
			if _, err := r.source.Attestation(r.t.Context(), current, nil); err != nil {
				r.t.Error(err)
			}
		}, 0, "another attestation"},
		"another table": {policy{}, func(r *aheadRig) {
			if err := r.Update([]transport.Server{r.server.Transport()}, nil); err != nil {
				r.t.Error(err)
			}
		}, 0, "replaced"},
		"the clock goes ahead":    {policy{}, func(r *aheadRig) { r.offset.Add(int64(2 * time.Second)) }, 0, "clock"},
		"the clock is set back":   {policy{}, func(r *aheadRig) { r.offset.Add(-int64(2 * time.Second)) }, 0, "clock"},
		"the clock is set by far": {policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways}, func(r *aheadRig) { r.offset.Add(int64(8 * time.Second)) }, 0, "clock"},
	} {
		t.Run(name, func(t *testing.T) {
			signingAhead(t, test.policy, func(r *aheadRig) {
				r.takes()
				time.Sleep(time.Second)
				r.wants(2, 0)
				test.change(r)
				before := r.server.Count(transporttest.Token)
				if took := r.takes(); took != chipTime {
					t.Errorf("took %s, want a signature", took)
				}
				r.wants(3+test.signed, 1)
				if why := r.whys(); len(why) != 1 || !strings.Contains(why[0].Error(), test.why) {
					t.Errorf("unused because %v, want %q", why, test.why)
				}
				if n := r.server.Count(transporttest.Token) - before; n != 1 {
					t.Errorf("sent %d times; the server saw:\n%s", n, r.history())
				}
				time.Sleep(time.Second)
				if took := r.takes(); took != 0 {
					t.Errorf("the next one took %s", took)
				}
				r.twice()
			})
		})
	}
}

// TestSignAheadGivesBack: the challenge of a single-use server that was kept for a proof
// goes to another request if the proof is not sent.
func TestSignAheadGivesBack(t *testing.T) {
	signingAhead(t, policy{Kind: transporttest.SingleUse}, func(r *aheadRig) {
		for range 3 {
			r.takes()
			time.Sleep(time.Second)
		}
		challenges := r.server.Count(transporttest.Challenge)
		if err := r.Update([]transport.Server{r.server.Transport()}, nil); err != nil {
			t.Error(err)
		}
		r.takes()
		if n := r.server.Count(transporttest.Challenge) - challenges; n != 0 {
			t.Errorf("%d challenges were fetched, want the one that was kept", n)
		}
		if n := r.server.Refused(); n != 1 { // when the kind was learnt
			t.Errorf("%d refused; the server saw:\n%s", n, r.history())
		}
	})
}

// TestSignAheadNever for what the caller puts into proofs.
func TestSignAheadNever(t *testing.T) {
	same := func(req *http.Request) *http.Request { return req }
	for name, test := range map[string]struct {
		config  func(*transport.Config)
		request func(*http.Request) *http.Request
	}{
		"bound messages": {func(*transport.Config) {}, func(req *http.Request) *http.Request {
			return req.WithContext(transport.BindMessage(req.Context(), []byte("message")))
		}},
		"bound bodies": {func(c *transport.Config) { c.BindBody = true }, same},
		"claims": {func(c *transport.Config) {
			c.Claims = func(*http.Request) (map[string]any, error) { return map[string]any{"tenant": 1}, nil }
		}, same},
		"claims, perhaps none": {func(c *transport.Config) {
			c.Claims = func(*http.Request) (map[string]any, error) { return nil, nil }
		}, same},
		"SignAhead is zero": {func(c *transport.Config) { c.SignAhead = 0 }, same},
	} {
		t.Run(name, func(t *testing.T) {
			signingAhead(t, policy{}, func(r *aheadRig) {
				for range 3 {
					if took := r.takes(test.request); took != chipTime {
						t.Errorf("took %s", took)
					}
					time.Sleep(time.Second)
				}
				r.wants(3, 0)
			}, func(_ *aheadRig, c *transport.Config) { test.config(c) })
		})
	}
	// One that was signed for a request without goes to the next one without.
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.takes()
		time.Sleep(time.Second)
		if took := r.takes(func(req *http.Request) *http.Request {
			return req.WithContext(transport.BindMessage(req.Context(), []byte("message")))
		}); took != chipTime {
			t.Errorf("a bound message took %s", took)
		}
		if took := r.takes(); took != 0 {
			t.Errorf("the next one took %s", took)
		}
	})
}

// TestSignAheadWaits: whoever waits for the key is served before anything is signed ahead,
// and whoever comes while that is done has it.
func TestSignAheadWaits(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.takes()
		time.Sleep(time.Second)
		const burst = 20
		var wg sync.WaitGroup
		start := time.Now()
		for range burst {
			wg.Go(func() { r.takes() })
		}
		wg.Wait()
		if took := time.Since(start); took != (burst-1)*chipTime {
			t.Errorf("%d at once took %s, want one signature less than there are requests", burst, took)
		}
		if order, want := r.key.order(), "xa"+strings.Repeat("x", burst-1); !strings.HasPrefix(order, want) {
			t.Errorf("signed in the order %s (a: ahead), want %s first", order, want)
		}
		time.Sleep(50 * time.Millisecond) // the next one is being signed
		if took := r.takes(); took >= chipTime || took < chipTime/2 {
			t.Errorf("a request that comes while its proof is signed took %s", took)
		}
		r.wants(1+1+burst-1+1, 0)
		r.twice()
	})
}

// TestSignAheadTaker: who gives up the wait for a proof leaves it to others.
func TestSignAheadTaker(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.takes()
		time.Sleep(50 * time.Millisecond)
		ctx, cancel := context.WithTimeout(r.t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := r.fail(r.request(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if took := r.takes(); took != 0 {
			t.Errorf("took %s", took)
		}
		r.wants(2, 0)
	})
}

// TestSignAheadFails: what cannot be signed in the background, since a PIN is needed for
// example, is signed with the request.
func TestSignAheadFails(t *testing.T) {
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.key.refuse.Store(true)
		for range 3 {
			if took := r.takes(); took != chipTime {
				t.Errorf("took %s", took)
			}
			time.Sleep(time.Second)
		}
		r.wants(3, 0)
		r.key.refuse.Store(false)
		r.takes()
		time.Sleep(time.Second)
		if took := r.takes(); took != 0 {
			t.Errorf("with the PIN it took %s", took)
		}
	})
}

// TestSignAheadRepeated: a DPoP proof for a resource is signed ahead once method, URL and
// token were repeated.
func TestSignAheadRepeated(t *testing.T) {
	const resource = "https://rs.example/api"
	signingAhead(t, policy{}, func(r *aheadRig) {
		call := func(url, token string) time.Duration {
			req, start := get(r.t, url), time.Now()
			req.Header.Set("Authorization", "DPoP "+token)
			r.want(http.StatusOK, req)
			took := time.Since(start)
			time.Sleep(time.Second)
			return took
		}
		for i, test := range []struct {
			url, token string
			waits      bool
		}{
			{"/a", "1", true}, {"/b", "1", true}, {"/b", "1", true}, {"/b?query", "1", false}, {"/b", "1", false},
			{"/b", "2", true}, {"/b", "2", true}, {"/b", "2", false}, {"/c", "2", true},
		} {
			if took := call(resource+test.url, test.token); took == 0 == test.waits {
				t.Errorf("call %d of %+v took %s", i, test, took)
			}
		}
		r.wants(9+2, 2)
	}, func(r *aheadRig, c *transport.Config) {
		c.Resources = []transport.Resource{{Identifier: resource, Unattested: true}}
		r.server.Set(func(p *policy) {
			p.Intercept = func(_ http.ResponseWriter, r transporttest.Request) bool { return strings.HasPrefix(r.Path, "/api") }
		})
	})
}

// TestWaitedForIsNotInBackground: the key learns when a request waits for what it signs
// ahead, so that it is no longer the last of those that one TPM serves.
func TestWaitedForIsNotInBackground(t *testing.T) {
	key := new(hesitantKey)
	signingAhead(t, policy{}, func(r *aheadRig) {
		r.takes()
		time.Sleep(50 * time.Millisecond) // the next proof is being signed, and the key does something else first
		if took := r.takes(); took > time.Minute {
			t.Errorf("it took %v until the key knew of the request", took)
		}
		if n := key.told.Load(); n == 0 {
			t.Error("the key was never told")
		}
	}, func(r *aheadRig, c *transport.Config) {
		key.chipKey = r.key
		c.Key = key
	})
}

// hesitantKey does not sign in the background before somebody waits for it, or an hour has
// passed.
type hesitantKey struct {
	*chipKey
	told atomic.Int32
}

func (k *hesitantKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if wanted, ahead := keystore.Background(ctx); ahead {
		select {
		case <-wanted:
			k.told.Add(1)
		case <-time.After(time.Hour):
		case <-ctx.Done():
		}
	}
	return k.chipKey.Sign(ctx, input)
}
