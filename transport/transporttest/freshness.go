package transporttest

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

var rawURL = base64.RawURLEncoding

// values makes the random texts of a Server, the same ones for the same seed.
type values struct {
	mu     sync.Mutex
	source *rand.ChaCha8
}

func newValues(seed uint64) *values {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &values{source: rand.NewChaCha8(key)}
}

func (v *values) next() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var b [16]byte
	v.source.Read(b[:]) // never fails
	return rawURL.EncodeToString(b[:])
}

// challenges is what a server remembers of the challenges that it gave.
type challenges struct {
	values *values

	mu      sync.Mutex
	good    map[string]bool
	current string // of a reusable server
	judged  int    // good challenges, for RefuseEvery
	refused int
}

// offer returns a challenge for an answer.
func (c *challenges) offer(p Policy) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Kind == SingleUse || c.current == "" {
		c.make(p)
	}
	return c.current
}

// make makes a challenge. c.mu is held.
func (c *challenges) make(p Policy) {
	c.current = c.values.next()
	if missing := p.ChallengeBytes - len(c.current); missing > 0 {
		c.current += strings.Repeat("A", missing)
	}
	c.good[c.current] = true
}

// rotate makes all challenges bad.
func (c *challenges) rotate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.good)
	c.current = ""
}

// refuse returns why a challenge is refused, "" if it is not, and uses it up
// where it can be used once only.
func (c *challenges) refuse(p Policy, value string) (reason string) {
	if p.Kind == NoChallenges {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() {
		if reason != "" {
			c.refused++
		}
	}()
	if value == "" {
		return "no challenge"
	}
	if !c.good[value] {
		return fmt.Sprintf("challenge %.30q is not known, rotated away, or used up", value)
	}
	if p.Kind == SingleUse {
		delete(c.good, value)
	}
	c.judged++
	if p.RefuseAll || p.RefuseEvery > 0 && c.judged%p.RefuseEvery == 0 {
		c.current = "" // what is offered with the refusal is a new one
		return "refused by policy"
	}
	return ""
}

// nonces are the DPoP nonces of a server: one at a time, until rotated.
type nonces struct {
	values *values

	mu      sync.Mutex
	current string
}

func (n *nonces) offer() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current == "" {
		n.current = n.values.next()
	}
	return n.current
}

func (n *nonces) good(value string) bool { return value != "" && value == n.offer() }

func (n *nonces) rotate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current = ""
}
