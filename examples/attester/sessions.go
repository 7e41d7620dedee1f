package attester

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

const (
	sessionLifetime = 5 * time.Minute
	maxSessions     = 10_000
	// maxSessionsOfOne keeps whoever has seen one EK certificate, which is no
	// secret, from filling the memory with sessions that he cannot complete.
	maxSessionsOfOne = 4
)

// sessions are enrolments that wait for the device's answer: a bounded number,
// each for a limited time and for one try. Safe for concurrent use.
type sessions struct {
	mu    sync.Mutex
	now   func() time.Time
	open  map[string]*session
	ofOne map[string]int // number of open sessions, by EK
	queue []*session     // oldest first
}

type session struct {
	id        string
	expiry    time.Time
	enrolment *evidence.Enrolment
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, open: make(map[string]*session), ofOne: make(map[string]int)}
}

// add opens a session and returns its name, which nobody can guess.
func (s *sessions) add(enrolment *evidence.Enrolment) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if len(s.queue) >= maxSessions {
		return "", refuse(codeTemporarilyUnavailable, "%d enrolments are under way", len(s.queue))
	}
	if n := s.ofOne[enrolment.EK]; n >= maxSessionsOfOne {
		return "", refuse(codeTemporarilyUnavailable, "%d enrolments of this TPM are under way", n)
	}
	added := &session{id: rand.Text(), expiry: s.now().Add(sessionLifetime), enrolment: enrolment}
	s.open[added.id] = added
	s.ofOne[enrolment.EK]++
	s.queue = append(s.queue, added)
	return added.id, nil
}

// take closes a session and returns its enrolment; nil if there is none, or no
// longer. A session can be taken once.
func (s *sessions) take(id string) *evidence.Enrolment {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	taken, ok := s.open[id]
	if !ok {
		return nil
	}
	s.close(taken)
	return taken.enrolment
}

// expire closes the sessions whose time is over. All live equally long, so these
// are the first in the queue. One that was taken stays in the queue until then:
// it counts toward maxSessions, and costs little.
func (s *sessions) expire() {
	now := s.now()
	expired := 0
	for expired < len(s.queue) && !now.Before(s.queue[expired].expiry) {
		if _, ok := s.open[s.queue[expired].id]; ok {
			s.close(s.queue[expired])
		}
		expired++
	}
	s.queue = s.queue[expired:]
}

func (s *sessions) close(closed *session) {
	delete(s.open, closed.id)
	if s.ofOne[closed.enrolment.EK]--; s.ofOne[closed.enrolment.EK] == 0 {
		delete(s.ofOne, closed.enrolment.EK)
	}
}
