// SPDX-License-Identifier: Apache-2.0

package transport_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// chipTime is how long a chipKey signs.
const chipTime = 200 * time.Millisecond

// A chipKey signs like a TPM.
type chipKey struct {
	keystore.Key
	signed, ahead atomic.Int32 // how often, and how often of that in the background
	refuse        atomic.Bool  // what is signed in the background, as if a PIN had to be asked for

	mu  sync.Mutex
	log []byte
}

// order returns a letter for each signature that was begun: a for those in the background,
// x for the others.
func (k *chipKey) order() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return string(k.log)
}

func (k *chipKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	_, ahead := keystore.Background(ctx)
	if ahead && k.refuse.Load() {
		return nil, fmt.Errorf("%w: no PIN", keystore.ErrAuth)
	}
	k.signed.Add(1)
	letter := byte('x')
	if ahead {
		k.ahead.Add(1)
		letter = 'a'
	}
	k.mu.Lock()
	k.log = append(k.log, letter)
	k.mu.Unlock()
	select {
	case <-time.After(chipTime):
		return k.Key.Sign(ctx, input)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// An aheadRig is a Transport with a slow key that signs ahead. Time is the bubble's.
type aheadRig struct {
	*fixture
	t      *testing.T
	key    *chipKey
	offset atomic.Int64 // of the device's clock
	mu     sync.Mutex
	unused []error // of the proofs that were thrown away
}

const ahead = 10 * time.Second

// signingAhead calls f in a bubble, at whose end the Transport is closed. The server takes
// no proof that is older than it may be.
func signingAhead(t *testing.T, p policy, f func(*aheadRig), edits ...func(*aheadRig, *transport.Config)) {
	t.Helper()
	p.Window, p.NoRandomRefusals = ahead, true
	fix := &fixture{t: t, key: newKey()}
	fix.server = transporttest.New(t, transporttest.Config{Policy: p, Clock: time.Now})
	synctest.Test(t, func(t *testing.T) {
		r := &aheadRig{fixture: fix, t: t, key: &chipKey{Key: fix.key}}
		fix.t, fix.clock = t, newClock()
		fix.source = fix.server.Attester.Source(fix.key)
		fix.inProcess(func(c *transport.Config) {
			c.Key, c.SignAhead, c.Clock = r.key, ahead, func() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }
			c.Trace = &transport.Trace{Unused: func(_ context.Context, e transport.TraceEvent) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.unused = append(r.unused, e.Err)
			}}
			for _, edit := range edits {
				edit(r, c)
			}
		})
		f(r)
		r.Close()
		synctest.Wait()
		sent, unused := r.SignedAhead()
		if why := r.whys(); len(why) != unused {
			t.Errorf("%d counted as unused, %d traced: %v", unused, len(why), why)
		}
		if n := int(r.key.ahead.Load()); sent+unused < n {
			t.Errorf("%d sent and %d unused of %d signed ahead", sent, unused, n)
		}
	})
}

// takes makes a request that must succeed, and returns how long it took.
func (r *aheadRig) takes(edits ...func(*http.Request) *http.Request) time.Duration {
	r.t.Helper()
	req, start := r.request(r.t.Context()), time.Now()
	for _, edit := range edits {
		req = edit(req)
	}
	r.want(http.StatusOK, req)
	return time.Since(start)
}

// whys returns why proofs were thrown away.
func (r *aheadRig) whys() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.unused)
}

// wants checks how often was signed, and how often of that in vain.
func (r *aheadRig) wants(signed, unused int) {
	r.t.Helper()
	if _, n := r.SignedAhead(); int(r.key.signed.Load()) != signed || n != unused {
		r.t.Errorf("%d signatures, %d of them in vain (%v), want %d and %d", r.key.signed.Load(), n, r.whys(), signed, unused)
	}
}

// twice checks that no jti was sent twice, and returns how many challenges were.
func (r *aheadRig) twice() (challenges int) {
	r.t.Helper()
	seen := make(map[string]bool)
	for _, request := range r.server.Requests() {
		for _, p := range []*transporttest.Proof{request.PoP, request.DPoP} {
			if p == nil {
				continue
			}
			if seen[p.ID] {
				r.t.Errorf("the jti %s was sent twice", p.ID)
			}
			seen[p.ID] = true
			if p.Challenge != "" && seen["challenge "+p.Challenge] {
				challenges++
			}
			seen["challenge "+p.Challenge] = true
		}
	}
	return challenges
}

// pacedPolicies are kinds of servers, with how many requests wait for the key until the
// kind is known, how many proofs are refused until then, and how many a request carries.
// A second one is signed ahead once a first one was of use.
var pacedPolicies = map[string]struct {
	policy  policy
	edit    func(*aheadRig, *transport.Config)
	learns  int
	refused int
	proofs  int
}{
	"reusable":                   {policy{}, nil, 1, 0, 1},
	"reusable, with responses":   {policy{Offer: transporttest.OfferAlways}, nil, 1, 0, 1},
	"single use, endpoint":       {policy{Kind: transporttest.SingleUse}, nil, 2, 1, 1},
	"single use, with responses": {policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways, NoEndpoint: true}, nil, 1, 1, 1},
	"single use, both":           {policy{Kind: transporttest.SingleUse, Offer: transporttest.OfferAlways}, nil, 1, 0, 1},
	"no challenges":              {policy{Kind: transporttest.NoChallenges, NoEndpoint: true}, nil, 1, 0, 1},
	"combined":                   {policy{Combined: true}, nil, 1, 0, 1},
	"combined, nonces":           {policy{Combined: true, Nonces: true, Offer: transporttest.OfferAlways}, nil, 1, 0, 1},
	"DPoP by the instance key":   {policy{Nonces: true}, withInstanceDPoP, 1, 0, 2},
}

func withInstanceDPoP(r *aheadRig, c *transport.Config) {
	withDPoP(c)
	c.DPoPKey = r.key
}

// TestSignAheadPaced: at one request a second none waits for the key but the first ones,
// no proof is refused or sent twice, and an idle hour wastes what one request carries.
func TestSignAheadPaced(t *testing.T) {
	for name, test := range pacedPolicies {
		t.Run(name, func(t *testing.T) {
			edit := test.edit
			if edit == nil {
				edit = func(*aheadRig, *transport.Config) {}
			}
			signingAhead(t, test.policy, func(r *aheadRig) {
				const requests = 100
				for i := range requests {
					first := 0 // of the proofs that are not signed ahead yet
					if i == 1 {
						first = test.proofs - 1
					}
					if took := r.takes(); i >= test.learns && took != chipTime*time.Duration(first) {
						t.Errorf("request %d took %s", i+1, took)
					}
					time.Sleep(time.Second)
				}
				if n := r.server.Refused(); n != test.refused {
					t.Errorf("%d refused, want %d; the server saw:\n%s", n, test.refused, r.history())
				}
				time.Sleep(time.Hour)
				sent, unused := r.SignedAhead()
				if want := (requests-1)*test.proofs - (test.proofs - 1); sent != want || unused != test.proofs {
					t.Errorf("%d sent, %d unused (%v), want %d and %d", sent, unused, r.whys(), want, test.proofs)
				}
				r.wants((requests+1)*test.proofs+test.refused, test.proofs)
				if n := r.twice(); test.policy.Kind == transporttest.SingleUse && n != test.learns-1 {
					t.Errorf("%d challenges were sent twice; the server saw:\n%s", n, r.history())
				}
				if took := r.takes(); took != chipTime*time.Duration(test.proofs) {
					t.Errorf("after an hour a request took %s", took)
				}
			}, edit)
		})
	}
}
