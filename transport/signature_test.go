package transport_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestIatIsOfTheSignature: who has waited for the key makes claims then, not
// before.
func TestIatIsOfTheSignature(t *testing.T) {
	f := newFixture(t, policy{})
	synctest.Test(t, func(t *testing.T) {
		key := newStuckKey(f.key)
		f.inProcess(func(c *transport.Config) { c.Key = key })
		first := f.start(t.Context())
		synctest.Wait()
		second := f.start(t.Context())
		synctest.Wait()
		if n := len(key.entered); n != 1 {
			t.Errorf("%d signatures at once, want 1", n)
		}
		f.clock.advance(10 * time.Second)
		now := f.clock.Now().Unix()
		close(key.let)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		issued := make(map[int64]bool)
		for _, r := range f.server.Requests(transporttest.Token) {
			issued[r.PoP.IssuedAt] = true
		}
		if !issued[now] || !issued[now-10] {
			t.Errorf("iat %v, want %d and %d", issued, now-10, now)
		}
	})
}
