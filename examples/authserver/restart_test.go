// SPDX-License-Identifier: Apache-2.0

package authserver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

// TestClockSetBack: what was used stays used, whatever the clock does.
func TestClockSetBack(t *testing.T) {
	for name, challenges := range map[string]*authserver.ChallengeConfig{
		"single use": {Endpoint: true, SingleUse: true}, "reusable": {Endpoint: true}, "none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(cfg *authserver.Config) { cfg.Challenges = challenges })
			used := f.pop()
			f.wantToken(f.send(used), "Bearer")
			start := f.now
			for _, step := range []time.Duration{0, 70 * time.Second, 5 * time.Minute, time.Hour} {
				f.now = start.Add(step)
				f.wantToken(f.send(f.pop()), "Bearer") // time passes
				f.now = start
				if w := f.send(used); w.Code != badRequest {
					t.Errorf("after %v and back: %d %s", step, w.Code, w.Body)
				}
				f.wantToken(f.send(f.pop()), "Bearer")
			}
		})
	}
}

// TestRestart: a server that was started anew does not know what was used before.
// A challenge or a nonce of its own shows that a proof was made since; without
// these its iat must.
func TestRestart(t *testing.T) {
	for name, tc := range map[string]struct {
		configure func(*authserver.Config)
		make      func(*fixture) *call
		code      string
	}{
		"PoP JWT, no challenges": {func(cfg *authserver.Config) { cfg.Challenges = nil }, (*fixture).pop, attestation},
		"PoP JWT, challenges":    {nil, (*fixture).pop, "use_attestation_challenge"},
		"combined, no nonces":    {nil, (*fixture).combined, "invalid_dpop_proof"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.configure)
			c := tc.make(f)
			if w := f.send(c); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			restarted := newFixture(t, func(cfg *authserver.Config) {
				if tc.configure != nil {
					tc.configure(cfg)
				}
				f.now = f.now.Add(1500 * time.Millisecond)
				cfg.Now = func() time.Time { return f.now }
				cfg.AttesterKeys.Keys[0].Key = &f.attester.PublicKey
			})
			w := restarted.send(c)
			if got := body(t, w)["error"]; w.Code != badRequest || got != tc.code {
				t.Errorf("the same proof: %d %v, want %s", w.Code, got, tc.code)
			}
			f.server = restarted.server
			if w := f.send(tc.make(f)); w.Code != 200 {
				t.Errorf("a new proof: %d %s", w.Code, w.Body)
			}
		})
	}
}

// TestRestartAhead: a proof that a clock has made that is ahead is used when its time
// has come, where nothing else says that it was made since the server started, so that
// it is from before the start of the next one. Whoever gives up has used nothing.
func TestRestartAhead(t *testing.T) {
	nonces := func(cfg *authserver.Config) { cfg.DPoPNonces = true }
	for name, tc := range map[string]struct {
		configure func(*authserver.Config)
		make      func(*fixture) *call
		waits     bool
	}{
		"PoP JWT, no challenges": {noChallenges, (*fixture).pop, true},
		"PoP JWT, challenges":    {nil, (*fixture).pop, false},
		"combined, no nonces":    {nil, (*fixture).combined, true},
		"combined, nonces":       {nonces, (*fixture).combined, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f *fixture
				configure := func(cfg *authserver.Config) {
					if tc.configure != nil {
						tc.configure(cfg)
					}
					cfg.Now = time.Now
					if f != nil {
						cfg.AttesterKeys.Keys[0].Key = &f.attester.PublicKey
					}
				}
				f = newFixture(t, configure)
				ahead := func() *call {
					f.now = time.Now()
					c := tc.make(f)
					made := c.pop
					if made == nil {
						made = c.dpop
					}
					if made == c.dpop && !tc.waits {
						made.claims["nonce"] = f.send(c).Header().Get("DPoP-Nonce")
					}
					made.claims["iat"] = time.Now().Add(10 * time.Second).Unix()
					return c
				}
				c := ahead()
				start := time.Now()
				if w := f.send(c); w.Code != 200 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				if waited := time.Since(start); (waited > 9*time.Second) != tc.waits || waited > 10*time.Second {
					t.Errorf("it took %v", waited)
				}
				time.Sleep(time.Second)
				restarted := newFixture(t, configure)
				if w := restarted.send(c); w.Code == 200 {
					t.Errorf("the server after this one takes it again: %s", w.Body)
				}
				if !tc.waits {
					return
				}
				c = ahead()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if w := f.do(f.build(c).WithContext(ctx)); w.Code != 503 {
					t.Errorf("given up: %d %s", w.Code, w.Body)
				}
				if w := f.send(c); w.Code != 200 {
					t.Errorf("after that: %d %s", w.Code, w.Body)
				}
			})
		})
	}
}
