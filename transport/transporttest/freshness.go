// SPDX-License-Identifier: Apache-2.0

package transporttest

import (
	"encoding/base64"
	"encoding/binary"
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
	binary.LittleEndian.PutUint64(key[:], seed)
	return &values{source: rand.NewChaCha8(key)}
}

func (v *values) next() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var b [16]byte
	v.source.Read(b[:]) // never fails
	return rawURL.EncodeToString(b[:])
}

// Of the good challenges, one in refuseOneIn is refused at random.
const refuseOneIn = 10

// challenges is what a server remembers of the challenges that it gave.
type challenges struct {
	values *values

	mu      sync.Mutex
	dice    *rand.Rand // a stream of its own, so that it changes no other value
	good    map[string]bool
	spared  map[string]bool // from refusals at random
	current string          // of a reusable server
	judged  int             // good challenges, for RefuseEvery
	refused int
}

func newChallenges(values *values, seed uint64) challenges {
	return challenges{
		values: values,
		dice:   rand.New(rand.NewPCG(seed, 0)),
		good:   make(map[string]bool),
		spared: make(map[string]bool),
	}
}

// offer returns a challenge for an answer, which may be an error.
func (c *challenges) offer(p Policy, withError bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Otherwise a reusable server would refuse once, and its clients have what
	// is spared for ever.
	another := c.spared[c.current] && !withError && p.refusesAtRandom()
	if p.Kind == SingleUse || c.current == "" || another {
		c.make(p)
	}
	if withError {
		c.spared[c.current] = true
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
	clear(c.spared)
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
	if p.refusesAtRandom() && !c.spared[value] && c.dice.IntN(refuseOneIn) == 0 {
		delete(c.good, value)
		c.current = ""
		return "refused at random"
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
