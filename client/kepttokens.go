// SPDX-License-Identifier: Apache-2.0

package client

import (
	"maps"
	"time"

	"golang.org/x/oauth2"
)

// expiryDelta is how long before its expiry a token is no longer handed out.
const expiryDelta = 10 * time.Second

// minPutOff is how long a renewal that has failed is not tried again at least.
const minPutOff = time.Second

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
	renew time.Duration // the age from which on it is renewed
}

// moment is a time by the corrected clock of the device, which may be set back, and by
// that of the process, which stands still while the device sleeps. The more that one of
// them has moved on, the better the guess how long ago it was.
type moment struct{ device, process time.Time }

func (c *Client) ages() moment { return moment{c.clock.now(), time.Now()} }

// usable is the age up to which a token can be handed out.
func (t keptToken) usable() time.Duration { return t.life - expiryDelta }

// keptToken returns a copy of the token that is kept for that, nil if there is none, and
// whether it is to be renewed.
func (c *Client) keptToken(key string) (token *oauth2.Token, due bool) {
	c.mu.Lock()
	kept, ok := c.tokens.kept[key]
	c.mu.Unlock()
	if !ok {
		return nil, false
	}
	age := c.age(kept)
	if age >= kept.usable() {
		return nil, false
	}
	copied := *kept.Token
	copied.Expiry = expiryIn(kept.life-age, kept.Expiry)
	return &copied, age >= kept.renew
}

// expiryIn returns when a token expires that has so much of its life left, by the clock
// that golang.org/x/oauth2 compares with, which may be wrong or set meanwhile. That is
// known already, unless it differs by more than is acted on.
func expiryIn(left time.Duration, known time.Time) time.Time {
	expiry := time.Now().Add(left)
	if expiry.Round(0).Sub(known.Round(0)).Abs() < minOffset {
		return known
	}
	return expiry
}

func (c *Client) age(t keptToken) time.Duration {
	return max(c.clock.since(t.asked.device), time.Since(t.asked.process))
}

// putOff has a token renewed later that could not be renewed now, and again and again, less
// and less long before its end.
func (c *Client) putOff(key string) {
	c.mu.Lock()
	kept, ok := c.tokens.kept[key]
	c.mu.Unlock()
	if !ok {
		return
	}
	age := c.age(kept)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.tokens.kept[key]; ok && now.Token == kept.Token {
		now.renew = age + max((now.usable()-age)/4, minPutOff)
		c.tokens.kept[key] = now
	}
}

// keepToken keeps a token that was asked for at that moment. One without an end would
// never be replaced, and is not kept.
func (c *Client) keepToken(key string, token *oauth2.Token, asked moment) {
	if token.Expiry.IsZero() {
		return
	}
	kept := keptToken{Token: token, asked: asked, life: time.Until(token.Expiry)}
	kept.renew = kept.usable() * 3 / 4
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
		return max(now.device.Sub(t.asked.device), now.process.Sub(t.asked.process)) >= t.usable()
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
