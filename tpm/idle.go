// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/instancekey/instancekey/tpm/internal/keyfile"
)

const (
	// idleTime is how long sessions and PINs are kept without use. With an open
	// session a signature is one command, but sessions are few.
	idleTime = 30 * time.Second

	// refreshTime is how long a session lies idle behind a resource manager, where it
	// is a saved context: when 255 others have been saved since, some TPMs refuse to
	// save the next, whose program fails (TPM_RC_CONTEXT_GAP). Any command of ours
	// makes it the newest.
	refreshTime = 10 * time.Second
)

// knownPIN is the PIN of a key, which each command's HMAC and encryption need.
type knownPIN struct {
	value  []byte
	used   time.Time
	proved bool // the TPM has taken it
}

// rememberPIN notes a key's PIN, unless it is nil, and returns the one that is known,
// or nil.
func (c *call) rememberPIN(k *keyfile.File, pin []byte) []byte {
	if pin != nil {
		c.forgetPIN(k)
		if c.pins == nil {
			c.pins = make(map[string]*knownPIN)
		}
		c.pins[string(k.Name.Buffer)] = &knownPIN{value: bytes.Clone(pin)} // the caller clears its own
		c.watch()
	}
	known := c.pins[string(k.Name.Buffer)]
	if known == nil {
		return nil
	}
	known.used = time.Now()
	return known.value
}

// provedPIN notes that the TPM has taken a key's PIN.
func (c *call) provedPIN(k *keyfile.File) {
	if known := c.pins[string(k.Name.Buffer)]; known != nil {
		known.proved = true
	}
}

// forgetUnproved forgets a PIN that may be wrong: who gives it again is told if it is.
func (c *call) forgetUnproved(k *keyfile.File) {
	if known := c.pins[string(k.Name.Buffer)]; known != nil && !known.proved {
		c.forgetPIN(k)
	}
}

func (c *call) knowsPIN(k *keyfile.File) bool { return c.pins[string(k.Name.Buffer)] != nil }

func (c *call) forgetPIN(k *keyfile.File) {
	if known := c.pins[string(k.Name.Buffer)]; known != nil {
		clear(known.value)
		delete(c.pins, string(k.Name.Buffer))
	}
}

func (h *held) forgetPINs() {
	for _, known := range h.pins {
		clear(known.value)
	}
	clear(h.pins)
}

// watch has endIdle called in time. The timer is not put off by each use, which would
// cost every signature: endIdle looks when the last one was.
func (d *device) watch() {
	if !d.watching {
		d.watching = true
		time.AfterFunc(refreshTime, d.endIdle)
	}
}

// endIdle ends what was not used for idleTime.
func (d *device) endIdle() {
	if d.acquire(context.Background()) != nil {
		return // closed, and all has ended thereby
	}
	defer d.slot.Give()
	c := newTidyingCall(d)
	c.deserted.Store(true)
	d.running.Store(c)
	defer d.running.Store(nil)
	defer time.AfterFunc(longestCommand, d.interrupt).Stop()

	if next := c.endIdle(time.Now()); next > 0 {
		time.AfterFunc(next, d.endIdle)
	} else {
		d.watching = false
	}
}

// endIdle returns when it is to be called again. 0: not before something is used.
func (c *call) endIdle(now time.Time) (next time.Duration) {
	soonest := func(used time.Time, limit time.Duration) {
		if left := limit - now.Sub(used); next == 0 || left < next {
			next = left
		}
	}
	for name, known := range c.pins {
		if now.Sub(known.used) >= idleTime {
			clear(known.value)
			delete(c.pins, name)
			continue
		}
		soonest(known.used, idleTime)
	}
	var idle []*session
	for _, s := range c.sessions {
		if now.Sub(s.used) >= idleTime {
			idle = append(idle, s)
			continue
		}
		soonest(s.used, idleTime)
	}
	for _, s := range idle {
		c.saveParent(s)
		c.rare = s.uses <= 1 && !s.soon
		c.flushSession(s)
	}
	if c.managed && len(c.sessions) > 0 {
		if now.Sub(c.sent) >= refreshTime {
			_, _ = c.property(tpm2.TPMPTFamilyIndicator) // whatever it says
			c.sent = now
		}
		soonest(c.sent, refreshTime)
	}
	return next
}
