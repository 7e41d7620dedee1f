// SPDX-License-Identifier: Apache-2.0

package client

import (
	"maps"
	"time"

	"golang.org/x/oauth2"
)

// expiryDelta is how long before its expiry a token is no longer handed out.
const expiryDelta = 10 * time.Second

// tokens are the tokens that Token keeps, by what they are for.
type tokens struct {
	kept  map[string]keptToken
	sweep int // how many there are when the expired ones are thrown away
}

// keptToken is a token with what tells its age. The time that it expires at is by a
// clock that may be set meanwhile.
type keptToken struct {
	*oauth2.Token
	asked moment
	life  time.Duration
}

// moment is a time by the corrected clock of the device, which may be set back, and by
// that of the process, which stands still while the device sleeps. The more that one of
// them has moved on, the better the guess how long ago it was.
type moment struct{ device, process time.Time }

func (c *Client) ages() moment { return moment{c.clock.now(), time.Now()} }

// isFresh reports whether a token can be handed out.
func (t keptToken) isFresh(device, process time.Duration) bool {
	return max(device, process) < t.life-expiryDelta
}

// keptToken returns a copy of the token that is kept for that, nil if there is none.
func (c *Client) keptToken(key string) *oauth2.Token {
	c.mu.Lock()
	kept, ok := c.tokens.kept[key]
	c.mu.Unlock()
	if !ok || !kept.isFresh(c.clock.since(kept.asked.device), time.Since(kept.asked.process)) {
		return nil
	}
	token := *kept.Token
	return &token
}

// keepToken keeps a token that was asked for at that moment. One without an end would
// never be replaced, and is not kept.
func (c *Client) keepToken(key string, token *oauth2.Token, asked moment) {
	if token.Expiry.IsZero() {
		return
	}
	kept := keptToken{token, asked, time.Until(token.Expiry)}
	now := c.ages()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens.kept == nil {
		c.tokens.kept = make(map[string]keptToken)
	}
	c.tokens.kept[key] = kept
	if len(c.tokens.kept) < c.tokens.sweep {
		return
	}
	maps.DeleteFunc(c.tokens.kept, func(_ string, t keptToken) bool {
		return !t.isFresh(now.device.Sub(t.asked.device), now.process.Sub(t.asked.process))
	})
	c.tokens.sweep = 2*len(c.tokens.kept) + 16
}

// Forget makes Token and TokenFor get a new token instead of this one. Call it when a
// resource has refused a token that has not expired. Forget does nothing for a token that
// the Client does not keep.
func (c *Client) Forget(token *oauth2.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.tokens.kept, func(_ string, kept keptToken) bool {
		return token != nil && kept.AccessToken == token.AccessToken
	})
}
