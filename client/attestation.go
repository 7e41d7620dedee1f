// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// attestation is a Client Attestation JWT that has passed the local checks.
type attestation struct {
	raw       string
	alg       string    // that it is signed with
	number    int       // in the order of receipt; a clock may be set back
	since     time.Time // when it was asked for
	issued    time.Time // zero: it does not say
	expiry    time.Time
	renewFrom time.Time // when to begin to look for the next one
	untried   bool      // asked for because a server had refused another one, and not yet accepted by any
	doubted   bool      // a server has called it bad, perhaps, and none has accepted it since
}

// renewal returns when to begin to renew an attestation: after 70 to 90 % of its life,
// which differs from one to the next, so that devices that booted together do not come
// to the attester together, and does not change when the device is started again. One
// that was old already when the attester gave it (isNew) is renewed after as much of what
// is left, so that the attester is not asked again at once.
func (a *attestation) renewal(now time.Time, isNew bool) time.Time {
	sum := sha256.Sum256([]byte(a.raw))
	part := 0.7 + 0.2*float64(binary.BigEndian.Uint32(sum[:]))/math.MaxUint32
	after := func(from time.Time) time.Time {
		return from.Add(time.Duration(part * float64(a.expiry.Sub(from))))
	}
	from := a.issued
	if from.IsZero() || from.After(now) {
		from = now
	}
	due := after(from)
	if isNew && !now.Before(due) {
		due = after(now)
	}
	return due
}

// early reports whether it says that it was issued later than now. Then the clock
// that it was issued by is wrong, or ours is.
func (a *attestation) early(now time.Time) bool {
	return a != nil && a.issued.After(now.Add(minOffset))
}

// valid reports whether it can be used now. If it was asked for later than now,
// the clock was set back since, and an attester in this instance may have issued
// it by that clock.
func (a *attestation) valid(now time.Time) bool {
	setBack := now.Before(a.since.Add(-minOffset))
	return now.Before(a.expiry) && !(setBack && (a.issued.IsZero() || a.early(now)))
}

// lacksIssuedAt is what to say of an attestation without iat. Nothing that a
// client checks makes it unfit: servers of earlier drafts take it, and only the
// server knows which it is.
const lacksIssuedAt = "the attestation has no iat, which servers require since draft -12 (section 4)"

// describe says what the client knows of an attestation that a server may have
// refused it for.
func (a *attestation) describe(now time.Time) string {
	text := fmt.Sprintf("the attestation is signed with %.40q", a.alg)
	switch left := a.expiry.Sub(now).Round(time.Second); {
	case left > 0:
		text += fmt.Sprintf(", expires in %s", left)
	default:
		text += fmt.Sprintf(", expired %s ago", -left)
	}
	switch age := now.Sub(a.issued).Round(time.Second); {
	case a.issued.IsZero():
		return text + "; " + lacksIssuedAt
	case age < 0:
		return text + fmt.Sprintf(" and was issued %s in the future by this clock", -age)
	default:
		return text + fmt.Sprintf(" and was issued %s ago", age)
	}
}
