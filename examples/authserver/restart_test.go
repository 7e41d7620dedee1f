package authserver_test

import (
	"testing"
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
