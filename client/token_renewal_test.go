// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// TestTokenRenewals: nobody waits for one, and each is one request.
func TestTokenRenewals(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, chip := withChip(t, r)
		r.edit(transporttest.Token, func(answer map[string]any) { answer["expires_in"] = 60 })
		c := r.client(t, chip)
		const renewals, callers = 250, 4 // so that 1,000 could wait
		if _, err := c.Token(t.Context(), "scope"); err != nil {
			t.Fatal(err)
		}
		start, waited := time.Now(), 0
		for r.Count(transporttest.Token) <= renewals {
			var wg sync.WaitGroup
			var long atomic.Int32
			for range callers {
				wg.Go(func() {
					start := time.Now()
					if _, err := c.Token(t.Context(), "scope"); err != nil {
						t.Error(err)
					}
					if time.Since(start) > 0 {
						long.Add(1)
					}
				})
			}
			wg.Wait()
			if waited += int(long.Load()); t.Failed() {
				return
			}
			time.Sleep(4 * time.Second)
		}
		if waited != 0 {
			t.Errorf("%d calls waited at %d renewals", waited, renewals)
		}
		// A token is used for 50 seconds, and renewed after three quarters of that, by the
		// next call.
		if took := time.Since(start); took < renewals*37*time.Second {
			t.Errorf("%d renewals in %s", renewals, took)
		}
	})
}

// TestTokenRenewalFails: the present token is used on, and the server is not asked with
// each call.
func TestTokenRenewalFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		key, chip := withChip(t, r)
		r.edit(transporttest.Token, func(answer map[string]any) { answer["expires_in"] = 110 })
		c := r.client(t, chip, func(cfg *client.Config) { cfg.SignAhead = 0 })
		first, err := c.Token(t.Context(), "scope")
		if err != nil {
			t.Fatal(err)
		}
		r.Set(func(p *transporttest.Policy) { p.UnknownClient = true })
		time.Sleep(76 * time.Second)
		for range 230 { // until 1 second before its end
			token, err := c.Token(t.Context(), "scope")
			if err != nil || token.AccessToken != first.AccessToken {
				t.Fatal(token, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := r.Count(transporttest.Token) - 1; n < 3 || n > 15 {
			t.Errorf("asked %d times for the next token", n)
		}
		time.Sleep(time.Second)
		if _, err := c.Token(t.Context(), "scope"); err == nil {
			t.Error("a token was handed out that has expired")
		}
		r.Set(func(p *transporttest.Policy) { p.UnknownClient = false })
		signed, start := key.signed.Load(), time.Now()
		if token, err := c.Token(t.Context(), "scope"); err != nil || token.AccessToken == first.AccessToken {
			t.Error(token, err)
		}
		if took := time.Since(start); took != chipTime || key.signed.Load() != signed+1 {
			t.Errorf("then it took %s and %d signatures", took, key.signed.Load()-signed)
		}
	})
}

// askedKey has a PIN, which it forgets when it is told to.
type askedKey struct {
	keystore.Key
	known atomic.Bool
	asked atomic.Int32
}

func (k *askedKey) Sign(ctx context.Context, input []byte) ([]byte, error) {
	if !k.known.Load() {
		if _, inBackground := keystore.Background(ctx); inBackground {
			return nil, fmt.Errorf("%w: no PIN", keystore.ErrAuth)
		}
		k.asked.Add(1)
		k.known.Store(true)
	}
	return k.Key.Sign(ctx, input)
}

// TestTokenRenewalAsksForNoPIN: nor does it keep one from being asked for by a call that
// has to wait.
func TestTokenRenewalAsksForNoPIN(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, chip := withChip(t, r)
		key := &askedKey{Key: newKey(t, "ES256")}
		r.edit(transporttest.Token, func(answer map[string]any) { answer["expires_in"] = 110 })
		c := r.client(t, chip, func(cfg *client.Config) { cfg.Key = key })
		for i := range 3 {
			if _, err := c.Token(t.Context(), "scope"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if n := int(key.asked.Load()); n != i+1 {
				t.Errorf("asked for the PIN %d times, want %d", n, i+1)
			}
			key.known.Store(false)
			for range 90 {
				time.Sleep(time.Second)
				if _, err := c.Token(t.Context(), "scope"); err != nil {
					t.Fatal(err)
				}
			}
			if n := int(key.asked.Load()); n != i+1 {
				t.Errorf("asked for the PIN %d times in the background", n-i-1)
			}
			time.Sleep(20 * time.Second)
		}
	})
}

// TestTokenRenewalCloses: a renewal under way ends with the Client.
func TestTokenRenewalCloses(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		_, chip := withChip(t, r)
		r.edit(transporttest.Token, func(answer map[string]any) { answer["expires_in"] = 110 })
		c := r.client(t, chip, func(cfg *client.Config) { cfg.SignAhead = 0 })
		for _, wait := range []time.Duration{0, 80 * time.Second} {
			time.Sleep(wait)
			if _, err := c.Token(t.Context(), "scope"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(chipTime / 2)
		start := time.Now()
		c.Close()
		synctest.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s", took)
		}
	}) // fails if a goroutine is left
}
