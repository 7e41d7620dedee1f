// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A demand says what a proof is for. Proofs of equal demands can take each other's place,
// as far as challenge and age allow.
type demand struct {
	typ         jose.ContentType
	attestation string // that it goes beside
	target      target // of a DPoP proof
}

// A proof is one that is signed ahead of its request, or is being so.
type proof struct {
	demand
	inBackground bool // nobody waits for it yet

	cancel context.CancelFunc
	wanted chan struct{} // closed when somebody waits for it
	done   chan struct{} // closed when what follows is set, and does not change any more

	held   held
	issued time.Time // its iat, by the clock; zero: its turn has not come
	begun  time.Time // the same moment by the process's clock, which is never set
	jwt    string
	err    error

	// Guarded by stock.mu.
	queued   bool // it waits for nothing but the key
	finished bool // done is closed
	isWanted bool // wanted is
	unused   error
	expiry   *time.Timer
}

// A stock holds what is signed ahead for one audience: one proof of each type at the
// most, since they age. A proof that is not in it belongs to whoever took it out.
type stock struct {
	mu     sync.Mutex
	ended  bool // nothing comes in any more
	proofs map[jose.ContentType]*proof

	// What is known of the audience's requests.
	next     []demand  // what another one like the most recent one will need
	last     target    // of that one
	paced    bool      // the proof that was signed ahead last was sent
	follower *audience // where the request after one of these goes to; nil: none was seen
	doubted  bool      // the last one went elsewhere
}

// look returns the proof of that type, nil if there is none.
func (s *stock) look(typ jose.ContentType) *proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proofs[typ]
}

// swap puts a proof in the place of another; each may be nil for none. It reports false,
// and does nothing, if there is another one than that.
func (s *stock) swap(typ jose.ContentType, before, after *proof) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proofs[typ] != before || s.ended && after != nil {
		return false
	}
	if before != nil && before.expiry != nil {
		before.expiry.Stop()
	}
	if s.proofs == nil {
		s.proofs = make(map[jose.ContentType]*proof)
	}
	if s.proofs[typ] = after; after == nil {
		delete(s.proofs, typ)
	}
	return true
}

// take takes out the proof of that type for a request, nil if there is none that is worth
// waiting for: until a challenge was fetched, hooks run that may wait for the request. From
// here on the proof is as urgent as any other.
func (s *stock) take(typ jose.ContentType) *proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proofs[typ]
	if p == nil || !p.queued {
		return nil
	}
	delete(s.proofs, typ)
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.want()
	return p
}

// want tells whoever signs a proof that somebody waits for it.
func (s *stock) want(p *proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.want()
}

// want is called while stock.mu is held.
func (p *proof) want() {
	if !p.isWanted {
		p.isWanted = true
		close(p.wanted)
	}
}

// putBack lets others have a proof that its taker has ceased to wait for. It reports false
// if it is too late for that.
func (s *stock) putBack(p *proof) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || p.finished || s.proofs[p.typ] != nil {
		return false
	}
	s.proofs[p.typ] = p
	return true
}

// queue notes that a proof waits for nothing but the key.
func (s *stock) queue(p *proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.queued = true
}

// finish notes that a proof is signed, or has failed. It returns why nobody wants it, nil
// if somebody does or may. expire is called when it has been in the stock for so long.
func (s *stock) finish(p *proof, lifetime time.Duration, expire func()) (unused error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.finished = true
	close(p.done)
	switch {
	case s.proofs[p.typ] != p:
	case p.err != nil:
		delete(s.proofs, p.typ)
	default:
		p.expiry = time.AfterFunc(lifetime, expire)
	}
	return p.unused
}

// giveUp notes why nobody wants a proof that was taken out. It reports whether it is
// finished; otherwise it is up to whoever signs it to see to the rest.
func (s *stock) giveUp(p *proof, why error) (finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.unused = why
	return p.finished
}

// isEnded reports whether nothing comes in any more.
func (s *stock) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// end takes out all that there is, and lets nothing in any more.
func (s *stock) end() []*proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.follower = true, nil
	return s.takeAll(func(*proof) bool { return true })
}

// holds reports whether there is something.
func (s *stock) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.proofs) > 0
}

// withdraw takes out what nobody has asked for.
func (s *stock) withdraw() []*proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeAll(func(p *proof) bool { return p.inBackground && !p.isWanted })
}

// takeAll takes out those proofs that are so. s.mu is held.
func (s *stock) takeAll(are func(*proof) bool) (taken []*proof) {
	for typ, p := range s.proofs {
		if !are(p) {
			continue
		}
		if p.expiry != nil {
			p.expiry.Stop()
		}
		delete(s.proofs, typ)
		taken = append(taken, p)
	}
	return taken
}

// Why a proof that was signed ahead is not sent.
var (
	errOld         = errors.New("it is too old")
	errClock       = errors.New("the clock was set or corrected")
	errChallenge   = errors.New("there is a newer challenge")
	errAttestation = errors.New("there is another attestation")
	errTarget      = errors.New("the request is for something else")
	errUpdated     = errors.New("servers and resources were replaced")
	errElsewhere   = errors.New("the request is for another server or resource")
	errNotSent     = errors.New("the request was not sent")
	errYounger     = errors.New("a younger one was asked for")
)
