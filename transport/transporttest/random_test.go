// SPDX-License-Identifier: Apache-2.0

package transporttest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/instancekey/instancekey/transport/transporttest"
)

const someSeed = 7

// refusedAt sends requests, each with a challenge from the challenge endpoint,
// and after a refusal one more with the challenge of that. It returns which were
// refused; a retry must not be.
func refusedAt(t *testing.T, p Policy, seed uint64) []int {
	t.Helper()
	c := newClient(t, Config{Policy: p, Seed: seed})
	attestation := []string{c.server.Attester.Attest(&c.key.PublicKey)}
	var refused []int
	for i := range 100 {
		resp := c.do(parts{attestation: attestation, pop: []string{c.pop(c.challenge())}})
		if c.code(resp) == "" {
			continue
		}
		refused = append(refused, i)
		if p.Offer == OfferNever || p.RepeatRefused {
			continue
		}
		offered := resp.Header.Get("OAuth-Client-Attestation-Challenge")
		retries := 1
		if p.Kind == Reusable {
			retries = 5
		}
		for range retries {
			if code := c.code(c.do(parts{attestation: attestation, pop: []string{c.pop(offered)}})); code != "" {
				t.Errorf("request %d: the retry was refused: %s", i, code)
			}
		}
	}
	for _, r := range c.server.Requests(Token) {
		if r.Code != "" && (r.Code != "use_attestation_challenge" || r.Reason != "refused at random" || r.Status != 400) {
			t.Errorf("%d %s: %s", r.Status, r.Code, r.Reason)
		}
	}
	if n := c.server.Refused(); n != len(refused) {
		t.Errorf("%d counted as refused, %d were", n, len(refused))
	}
	return refused
}

// TestRandomRefusals: who does not say otherwise has about one good challenge in
// ten refused, the same ones for the same seed.
func TestRandomRefusals(t *testing.T) {
	for _, p := range []Policy{{}, {Kind: SingleUse}, {Offer: OfferAlways}, {Kind: SingleUse, Offer: OfferAlways}} {
		t.Run(fmt.Sprintf("kind %d offer %d", p.Kind, p.Offer), func(t *testing.T) {
			first := refusedAt(t, p, someSeed)
			if n := len(first); n < 3 || n > 20 {
				t.Errorf("%d of 100 refused", n)
			}
			if again := refusedAt(t, p, someSeed); !slices.Equal(first, again) {
				t.Errorf("refused %v, and with the same seed %v", first, again)
			}
			if other := refusedAt(t, p, someSeed+1); slices.Equal(first, other) {
				t.Errorf("refused %v with another seed, too", other)
			}
		})
	}
	for name, p := range map[string]Policy{
		"told not to":                 {NoRandomRefusals: true},
		"told not to, single use":     {NoRandomRefusals: true, Kind: SingleUse},
		"refusals bring no challenge": {Offer: OfferNever},
		"refusals bring the refused":  {RepeatRefused: true},
	} {
		t.Run(name, func(t *testing.T) {
			if refused := refusedAt(t, p, someSeed); len(refused) != 0 {
				t.Errorf("refused %v", refused)
			}
		})
	}
}

// TestRefusedStaysRefused: a client that sends what was refused once more does
// not come through by luck.
func TestRefusedStaysRefused(t *testing.T) {
	c := newClient(t, Config{Seed: someSeed})
	attestation := []string{c.server.Attester.Attest(&c.key.PublicKey)}
	for range 100 {
		challenge := c.challenge()
		send := func() string { return c.code(c.do(parts{attestation: attestation, pop: []string{c.pop(challenge)}})) }
		if send() == "" {
			continue
		}
		if code := send(); code != "use_attestation_challenge" {
			t.Errorf("the second time: %q", code)
		}
		return
	}
	t.Error("nothing was refused")
}

// A logger is a testing.TB that remembers what it should log.
type logger struct {
	testing.TB
	lines []string
}

func (l *logger) Logf(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// TestSeedIsLogged: what New draws can be set again.
func TestSeedIsLogged(t *testing.T) {
	l := &logger{TB: t}
	first := New(l, Config{})
	var seed uint64
	if len(l.lines) != 1 {
		t.Fatalf("logged %q", l.lines)
	}
	if _, err := fmt.Sscanf(l.lines[0], "transporttest: seed %d", &seed); err != nil || seed == 0 {
		t.Fatalf("logged %q: %v", l.lines, err)
	}
	again, other := New(l, Config{Seed: seed}), New(l, Config{})
	path := func(s *Server) string { return strings.TrimPrefix(s.Endpoint(Token), s.URL) }
	if path(first) != path(again) || path(first) == path(other) {
		t.Errorf("paths %s, %s and %s", path(first), path(again), path(other))
	}
	if len(l.lines) != 2 {
		t.Errorf("logged %q", l.lines)
	}
}
