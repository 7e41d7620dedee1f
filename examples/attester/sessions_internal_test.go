package attester

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/instancekey/instancekey/examples/attester/evidence"
)

// TestSessionsAreBounded: in number, also counting those that were answered, and
// in time.
func TestSessionsAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := newSessions(func() time.Time { return now })
	of := func(ek int) *evidence.Enrolment {
		return &evidence.Enrolment{Endorsement: evidence.Endorsement{EK: fmt.Sprint(ek)}}
	}
	for i := range maxSessions {
		id, err := s.add(of(i))
		if err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		if i%2 == 0 && s.take(id) == nil {
			t.Fatalf("session %d is not there", i)
		}
	}
	refused := new(evidence.Error)
	if _, err := s.add(of(-1)); !errors.As(err, &refused) || refused.Code != codeTemporarilyUnavailable {
		t.Errorf("one too many: %v", err)
	}
	now = now.Add(sessionLifetime)
	if _, err := s.add(of(-1)); err != nil {
		t.Errorf("after they have expired: %v", err)
	}
	if len(s.open) != 1 || len(s.ofOne) != 1 || len(s.queue) != 1 {
		t.Errorf("%d sessions of %d TPMs left, %d in the queue", len(s.open), len(s.ofOne), len(s.queue))
	}
}
