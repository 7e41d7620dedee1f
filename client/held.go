package client

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// look returns the attestation that is at hand for a server with that list of
// algorithms, "" if there is none, and whether the attester is to be asked for
// the next one. err is what a request without an attestation fails with while it
// is not.
func (a *attestations) look(rejected string, signingAlgs []string) (current string, due bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	due = true
	for _, p := range []pause{a.pause, a.unfit[listKey(signingAlgs)]} {
		if !p.holds(now) {
			continue
		}
		due = false
		if err == nil {
			err = p.err
		}
	}
	usable := a.usable(now, rejected, signingAlgs)
	if usable == nil {
		return "", err == nil, err
	}
	return usable.raw, due && !now.Before(usable.renewFrom), nil
}

// usable returns the newest attestation that is valid, signed with one of these
// algorithms, and newer than the rejected one. a.mu is held.
func (a *attestations) usable(now time.Time, rejected string, signingAlgs []string) (usable *attestation) {
	after := 0
	for _, held := range a.held {
		if held.raw == rejected {
			after = held.number
		}
	}
	for _, held := range a.held {
		fits := len(signingAlgs) == 0 || slices.Contains(signingAlgs, held.alg)
		if fits && held.number > after && held.valid(now) {
			usable, after = held, held.number
		}
	}
	return usable
}

// settle takes note of what a renewal has brought.
func (a *attestations) settle(next *attestation, err error, signingAlgs []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.fail(err, signingAlgs)
		return
	}
	a.hold(next)
	a.pause = pause{}
	delete(a.unfit, listKey(signingAlgs))
}

// hold takes in a new attestation. a.mu is held.
func (a *attestations) hold(next *attestation) {
	a.got++
	next.number = a.got
	a.held[next.alg] = next
}

// fail notes what a failed renewal means for the next ones. a.mu is held.
func (a *attestations) fail(err error, signingAlgs []string) {
	p := pause{length: renewPause}
	if errors.Is(err, ErrAttestationRefused) {
		clear(a.held)
		p.err = err
	}
	var answer *AttesterError
	if errors.As(err, &answer) && answer.RetryAfter > 0 {
		p.length, p.err = answer.RetryAfter, err
	}
	p.until = a.now().Add(p.length)
	if errors.Is(err, errUnfit) {
		p.err = err
		a.unfit[listKey(signingAlgs)] = p
		return
	}
	a.pause = p
}

func listKey(signingAlgs []string) string { return strings.Join(signingAlgs, " ") }

// A pause is a time during which the attester is left alone.
type pause struct {
	until  time.Time
	length time.Duration
	err    error // what requests without an attestation fail with meanwhile; nil: they ask
}

// holds reports whether it is not over. One with more left than its length
// counts as over: the clock was set back.
func (p pause) holds(now time.Time) bool {
	left := p.until.Sub(now)
	return 0 < left && left <= p.length
}
