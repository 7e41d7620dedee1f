// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// due is how much the attester is to be asked for the next attestation.
type due int

const (
	notDue     due = iota
	dueSoon        // while the present one is used
	dueDoubted     // first of all, and the present one is used if there is no other
	dueNow         // there is none to use
)

// look returns the attestation that is at hand for a server with that list of
// algorithms, "" if there is none, and whether the attester is to be asked for
// the next one. err is returned to requests while the attester must not be asked and
// there is none.
func (a *attestations) look(rejected string, signingAlgs []string) (current string, next due, err error) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	mayAsk := true
	for _, p := range []failure{a.pause, a.unfit[listKey(signingAlgs)]} {
		if !p.holds(now) {
			continue
		}
		mayAsk = false
		if err == nil {
			err = p.err
		}
	}
	if rejected != "" && err == nil {
		err = a.tooOften(now, rejected)
	}
	usable := a.usable(now, rejected, signingAlgs)
	switch {
	case usable == nil && err == nil:
		return "", dueNow, nil
	case usable == nil:
		return "", notDue, err
	case mayAsk && usable.doubted && !a.doubts.holds(now):
		return usable.raw, dueDoubted, nil
	case mayAsk && !now.Before(usable.renewFrom):
		return usable.raw, dueSoon, nil
	default:
		return usable.raw, notDue, nil
	}
}

// tooOften returns an error if the server has refused what the attester has just given
// in place of another refused one. a.mu is held.
func (a *attestations) tooOften(now time.Time, rejected string) error {
	for _, held := range a.held {
		if held.raw == rejected && held.untried && a.doubts.holds(now) {
			return fmt.Errorf("%w: the server refuses a new one as not fresh enough, too; the attester is asked once a minute", ErrInvalidAttestation)
		}
	}
	return nil
}

// doubt notes that the attester is asked because of what a server said.
func (a *attestations) doubt() {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubts = pause{now, renewPause}
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

// describe says what is known of the newest attestation, "" if there is none.
func (a *attestations) describe() string {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	newest := a.newest()
	if newest == nil {
		return ""
	}
	return newest.describe(now)
}

// newest returns the attestation that came last, nil if there is none. a.mu is held.
func (a *attestations) newest() (newest *attestation) {
	for _, held := range a.held {
		if newest == nil || newest.number < held.number {
			newest = held
		}
	}
	return newest
}

// settle takes note of what a renewal has brought.
func (a *attestations) settle(next *attestation, err error, signingAlgs []string) {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed = err; err != nil {
		a.fail(now, err, signingAlgs)
		return
	}
	a.hold(next)
	a.pause = failure{}
	delete(a.unfit, listKey(signingAlgs))
}

// hold takes in a new attestation. a.mu is held.
func (a *attestations) hold(next *attestation) {
	a.got++
	next.number = a.got
	if before := a.held[next.alg]; before != nil && before.raw == next.raw {
		next.doubted = before.doubted
	}
	a.held[next.alg] = next
}

// fail notes what a failed renewal means for the next ones. a.mu is held.
func (a *attestations) fail(now time.Time, err error, signingAlgs []string) {
	p := failure{pause: pause{now, renewPause}}
	if errors.Is(err, ErrAttestationRefused) {
		clear(a.held)
		p.err = err
	}
	var answer *AttesterError
	if errors.As(err, &answer) && answer.RetryAfter > 0 {
		p.length, p.err = answer.RetryAfter, err
		if answer.Code == "" { // another has answered, perhaps, who knows nothing of the attester
			p.length = min(p.length, maxProxyPause)
		}
	}
	if errors.Is(err, errUnfit) {
		p.err = err
		a.unfit[listKey(signingAlgs)] = p
		return
	}
	a.pause = p
}

func listKey(signingAlgs []string) string { return strings.Join(signingAlgs, " ") }

// readBefore is how long before attestations.mu was locked the clock may have been
// read. What another request has put down meanwhile is not of the future.
const readBefore = 10 * time.Second

// A pause is a time during which somebody is left alone. The zero pause is over.
type pause struct {
	from   time.Time
	length time.Duration
}

// holds reports whether it is not over. One that begins later than now counts as
// over: the clock was set back.
func (p pause) holds(now time.Time) bool {
	age := now.Sub(p.from)
	return -readBefore < age && age < p.length
}

// failure is a pause after a failed renewal.
type failure struct {
	pause
	err error // what requests without an attestation fail with meanwhile; nil: they ask
}
