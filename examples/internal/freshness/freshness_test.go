package freshness_test

import (
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
	c.t = c.t.Add(time.Minute)
	for i := range 3 { // the three old ones must have gone, not just one
		if err := seen.Add(fmt.Sprint("new", i)); err != nil {
			t.Errorf("after expiry, value %d: %v", i, err)
		}
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
