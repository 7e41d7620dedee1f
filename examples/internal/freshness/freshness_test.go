// SPDX-License-Identifier: Apache-2.0

package freshness_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/internal/freshness"
)

// clock is a time that tests move by hand.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestChallenges(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	challenges := freshness.NewChallenges(time.Minute, c.now)
	good := challenges.New()
	if len(good) != 43 {
		t.Errorf("challenge has %d characters, want 43", len(good))
	}
	if challenges.New() == good {
		t.Error("two challenges are the same")
	}
	if err := challenges.Check(good); err != nil {
		t.Fatalf("fresh challenge: %v", err)
	}
	flipped := []byte(good)
	flipped[3] ^= 1 // still base64url: only the value differs
	// The last character carries two unused bits.
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[42])
	bad := map[string]string{
		"empty":           "",
		"other server's":  freshness.NewChallenges(time.Minute, c.now).New(),
		"changed":         string(flipped),
		"cut":             good[:42],
		"longer":          good + "A",
		"line break":      good[:20] + "\n" + good[20:],
		"unused bits set": good[:42] + string(alphabet[last|1]),
		"padded":          good + "=",
	}
	for name, value := range bad {
		if err := challenges.Check(value); !errors.Is(err, freshness.ErrUnknown) {
			t.Errorf("%s: got %v, want ErrUnknown", name, err)
		}
	}
	if len(bad) != 8 {
		t.Errorf("%d bad values tried, want 8", len(bad))
	}
	c.t = c.t.Add(time.Minute - 1)
	if err := challenges.Check(good); err != nil {
		t.Errorf("at the end of its life: %v", err)
	}
	c.t = c.t.Add(1)
	if err := challenges.Check(good); !errors.Is(err, freshness.ErrExpired) {
		t.Errorf("after its life: got %v, want ErrExpired", err)
	}
}

func TestSeen(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	seen := freshness.NewSeen(time.Minute, 3, c.now)
	for _, v := range []string{"a", "b", "c"} {
		if err := seen.Add(v); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
	}
	if err := seen.Add("a"); !errors.Is(err, freshness.ErrSeen) {
		t.Errorf("again: got %v, want ErrSeen", err)
	}
	if err := seen.Add("d"); !errors.Is(err, freshness.ErrFull) {
		t.Errorf("over capacity: got %v, want ErrFull", err)
	}
	if !seen.Has("c") || seen.Has("d") {
		t.Error("what was added is not there, or what was refused is")
	}
	c.t = c.t.Add(time.Minute - 1)
	if err := seen.Add("d"); !errors.Is(err, freshness.ErrFull) {
		t.Errorf("just before expiry: got %v, want ErrFull", err)
	}
	c.t = c.t.Add(1)
	for round := range 3 {
		for i := range 3 { // the three old ones must have gone, not just one
			if err := seen.Add(fmt.Sprint(round, i)); err != nil {
				t.Errorf("after expiry, round %d, value %d: %v", round, i, err)
			}
		}
		if err := seen.Add("d"); !errors.Is(err, freshness.ErrFull) {
			t.Errorf("round %d: got %v, want ErrFull", round, err)
		}
		if seen.Has("a") || !seen.Has(fmt.Sprint(round, 0)) {
			t.Errorf("round %d: an old value is still there, or a new one is not", round)
		}
		c.t = c.t.Add(time.Minute)
	}
}

// TestSeenKeepsWhatItCan: what is over is not forgotten while there is room, so
// that a clock that is set back makes nothing good again.
func TestSeenKeepsWhatItCan(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	seen := freshness.NewSeen(time.Minute, 3, c.now)
	if err := seen.Add("a"); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(time.Hour)
	if err := seen.Add("b"); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(-time.Hour)
	if err := seen.Add("a"); !errors.Is(err, freshness.ErrSeen) {
		t.Errorf("got %v, want ErrSeen", err)
	}
}

// TestMonotone: a clock that is set back, or forth and back, makes no challenge
// good again, and goes on.
func TestMonotone(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	now := freshness.Monotone(c.now)
	started := now()
	for i, step := range []struct{ step, want time.Duration }{
		{time.Minute, time.Minute},
		{-time.Hour, time.Minute},
		{time.Second, time.Minute + time.Second},
		{2 * time.Hour, 2*time.Hour + time.Minute + time.Second},
		{-5 * time.Minute, 2*time.Hour + time.Minute + time.Second},
		{-time.Millisecond, 2*time.Hour + time.Minute + time.Second}, // another goroutine's reading
		{2 * time.Millisecond, 2*time.Hour + time.Minute + time.Second + time.Millisecond},
	} {
		c.t = c.t.Add(step.step)
		if got := now().Sub(started); got != step.want {
			t.Errorf("step %d: %v after the start, want %v", i, got, step.want)
		}
	}

	challenges := freshness.NewChallenges(time.Minute, now)
	challenge := challenges.New()
	c.t = c.t.Add(time.Minute)
	if err := challenges.Check(challenge); !errors.Is(err, freshness.ErrExpired) {
		t.Errorf("got %v, want ErrExpired", err)
	}
	c.t = c.t.Add(-5 * time.Minute)
	if err := challenges.Check(challenge); !errors.Is(err, freshness.ErrExpired) {
		t.Errorf("set back: got %v, want ErrExpired", err)
	}
	if err := challenges.Check(challenges.New()); err != nil {
		t.Errorf("a new one, set back: %v", err)
	}
}

// TestSealer: state comes back as it was, to the one who sealed it, in time.
func TestSealer(t *testing.T) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	sealer := freshness.NewSealer(time.Minute, c.now)
	for _, state := range []string{"", "x", strings.Repeat("state", 1000)} {
		sealed := sealer.Seal([]byte(state))
		if got, err := sealer.Open(sealed); err != nil || string(got) != state {
			t.Errorf("%.10q: %.10q, %v", state, got, err)
		}
		if sealer.Seal([]byte(state)) == sealed {
			t.Error("the same state is sealed to the same text")
		}
	}
	sealed := sealer.Seal([]byte("state"))
	if raw, _ := base64.RawURLEncoding.DecodeString(sealed); bytes.Contains(raw, []byte("state")) {
		t.Error("the state can be read")
	}
	bad := []string{"", "A", sealed[:len(sealed)-1], sealed + "A", sealed[:9] + "\n" + sealed[9:], sealed + "=",
		freshness.NewSealer(time.Minute, c.now).Seal([]byte("state")), freshness.NewChallenges(time.Minute, c.now).New()}
	for i := range sealed {
		other := "A"
		if sealed[i] == 'A' {
			other = "B"
		}
		bad = append(bad, sealed[:i]+other+sealed[i+1:])
	}
	for _, text := range bad {
		if state, err := sealer.Open(text); !errors.Is(err, freshness.ErrUnknown) {
			t.Errorf("%q: %q, %v", text, state, err)
		}
	}
	if len(bad) < 60 {
		t.Errorf("%d bad values tried", len(bad))
	}
	c.t = c.t.Add(time.Minute - 1)
	if _, err := sealer.Open(sealed); err != nil {
		t.Errorf("at the end of its life: %v", err)
	}
	c.t = c.t.Add(1)
	if _, err := sealer.Open(sealed); !errors.Is(err, freshness.ErrExpired) {
		t.Errorf("after its life: %v", err)
	}
}

func TestSeenRace(t *testing.T) {
	seen := freshness.NewSeen(time.Minute, 10, time.Now)
	var wg sync.WaitGroup
	results := make(chan error, 50)
	for range 50 {
		wg.Go(func() { results <- seen.Add("one") })
	}
	wg.Wait()
	close(results)
	added := 0
	for err := range results {
		if err == nil {
			added++
		}
	}
	if added != 1 {
		t.Errorf("%d of 50 calls added the value, want 1", added)
	}
}
