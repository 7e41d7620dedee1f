// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/instancekey/instancekey/internal/flight"
	"github.com/instancekey/instancekey/keystore"
)

// MaxSignAhead is the most that Config.SignAhead can be: there are servers that take proofs
// for no more than a minute.
const MaxSignAhead = time.Minute

// maxStray is how far the clock may go from the process's without having been set.
const maxStray = time.Second

// aheadCounts are of the proofs that were signed ahead.
type aheadCounts struct{ sent, unused atomic.Int64 }

// SignedAhead returns how many of the proofs that were signed ahead (Config.SignAhead)
// were sent, and how many were thrown away.
func (t *Transport) SignedAhead() (sent, unused int) {
	return int(t.ahead.sent.Load()), int(t.ahead.unused.Load())
}

// demands returns the proofs by the Client Instance Key that a request carries, if they
// can be signed ahead: nothing of the caller's goes into them.
func (t *Transport) demands(req *http.Request, to *route, a attempt) (demands []demand) {
	if t.signAhead == 0 || a.reqHash != "" || t.bindBody || t.claims != nil {
		return nil
	}
	if to.sendsPoP() {
		demands = append(demands, demand{typ: typePoP, attestation: a.attestation})
	}
	if to.dpop == t.instance {
		demands = append(demands, demand{typ: typeDPoP, attestation: a.attestation, target: to.target(req)})
	}
	return demands
}

// restock sees to it that there is a proof for a demand.
func (t *Transport) restock(to *audience, d demand) {
	if t.closed.Err() != nil {
		return
	}
	before := to.stock.look(d.typ)
	var why error
	if before != nil {
		if why = t.fits(to, before, d); why == nil {
			return
		}
	}
	p := newProof(d)
	p.inBackground = true
	t.put(t.closed, to, before, p, why)
}

// newProof returns a proof that is to be signed.
func newProof(d demand) *proof {
	return &proof{demand: d, wanted: make(chan struct{}), done: make(chan struct{})}
}

// put signs a proof and puts it in the place of the one before, which is thrown away. It
// reports false if that one is not there any more. unused is why nobody wants the new one
// in its turn.
func (t *Transport) put(ctx context.Context, to *audience, before, p *proof, why error) (ok bool, unused error) {
	own, cancel := context.WithCancel(ctx)
	p.cancel = cancel
	defer cancel()
	if !to.stock.swap(p.typ, before, p) {
		return false, nil
	}
	hooks := afterwards(ctx)
	if before != nil {
		t.throwAway(ctx, to, before, why, hooks)
	}
	finished := false
	defer func() {
		if !finished { // the key, or the clock, has panicked: those who wait for the proof go on
			p.err = &aheadError{StepSign, errExited}
			to.stock.finish(p, 0, nil)
			to.pool(p.typ).release(p.held)
		}
	}()
	signature := t.fill(own, to, p)
	lifetime := t.lifetime(to) - time.Duration(p.issued.Nanosecond()) - time.Since(p.begun)
	finished, unused = true, to.stock.finish(p, lifetime, func() {
		if to.stock.swap(p.typ, p, nil) {
			t.throwAway(t.closed, to, p, errOld, afterwards(t.closed))
		}
	})
	// The hook may make a request, which may have waited for the proof.
	if !signature.Start.IsZero() {
		t.trace.signature(ctx, signature)
	}
	if unused == nil && p.err == nil {
		return true, nil
	}
	to.pool(p.typ).release(p.held)
	if unused == nil {
		unused = context.Cause(t.closed) // which ends a signature before Close comes to its proof
	}
	if unused != nil && !p.issued.IsZero() { // the key may have signed, although nobody waited
		t.waste(ctx, to, p, unused, hooks)
	} else if p.err != nil && own.Err() == nil {
		t.log.DebugContext(ctx, "transport: no proof is signed ahead", "audience", to.identifier, "error", p.err)
	}
	return true, unused
}

var errExited = errors.New("what signs has ended its goroutine")

// afterwards has hooks called once the work that ctx belongs to is done, and aside has
// them called by themselves, for those who may hold something.
func afterwards(ctx context.Context) func(func()) {
	return func(f func()) { flight.After(ctx, f) }
}

func aside(f func()) { go f() }

// fill signs a proof. The hook is to be called when that is settled.
func (t *Transport) fill(ctx context.Context, to *audience, p *proof) (signature TraceEvent) {
	pool := to.pool(p.typ)
	var ok bool
	if p.held, ok, p.err = pool.hold(ctx); p.err == nil && !ok {
		p.err = errSpent
	}
	if p.err != nil {
		p.err = &aheadError{StepChallenge, p.err}
		return TraceEvent{}
	}
	to.stock.queue(p)
	if p.inBackground { // the hooks' contexts are not, since a request may be made with them
		ctx = keystore.InBackground(ctx, p.wanted)
	}
	p.jwt, signature, p.err = t.instance.signUntraced(ctx, p.typ, func(now time.Time) ([]byte, error) {
		p.issued, p.begun = now, time.Now()
		p.held = pool.renew(p.held)
		challenge := use{challenge: p.held.challenge}
		if p.typ == typeDPoP {
			return newDPoP(p.target, challenge.value(), now)
		}
		return t.newPoP(to, attempt{challenge: challenge}, now)
	})
	if p.err != nil {
		p.err = &aheadError{StepSign, p.err}
	}
	return signature
}

var errSpent = errors.New("the server takes each challenge once, and has given no other one")

// aheadError tells what has failed as a proof was signed ahead.
type aheadError struct {
	step Step
	err  error
}

func (e *aheadError) Error() string { return fmt.Sprintf("%s: %v", e.step, e.err) }
func (e *aheadError) Unwrap() error { return e.err }

// fits returns why a proof cannot be sent for a demand now, nil if it can be or is not
// finished.
func (t *Transport) fits(to *audience, p *proof, d demand) error {
	switch {
	case p.attestation != d.attestation:
		return errAttestation
	case p.demand != d:
		return errTarget
	case !p.isDone():
		return nil
	case p.err != nil:
		return p.err
	case !to.pool(p.typ).isCurrent(p.held):
		return errChallenge
	default:
		return t.aged(to, p)
	}
}

// aged returns why a proof that is signed cannot be sent any more, by its age.
func (t *Transport) aged(to *audience, p *proof) error {
	const wall = 0 // what the clock shows, not what has passed
	now, passed := t.now().Round(wall), time.Since(p.begun)
	// A server sees whole seconds.
	age := now.Sub(p.issued.Round(wall).Truncate(time.Second))
	switch stray := now.Sub(p.issued.Round(wall)) - passed; {
	case stray.Abs() > maxStray:
		return errClock
	case age > t.lifetime(to) || passed > t.lifetime(to):
		return errOld
	}
	return nil
}

// lifetime is how old a proof may be when it is sent. One that says when it expires is
// not sent shortly before.
func (t *Transport) lifetime(to *audience) time.Duration {
	if to.profile == ProfileOpenID4VCI {
		return min(t.signAhead, oldPoPLifetime/2)
	}
	return t.signAhead
}

// pool returns where the challenge or nonce of such a proof comes from.
func (a *audience) pool(typ jose.ContentType) *pool {
	if typ == typeDPoP {
		return a.nonces
	}
	return a.challenges
}

func (p *proof) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// takeAhead returns the proof that was signed ahead for a demand, with its challenge, nil
// if there is none. One that is being signed is waited for.
func (t *Transport) takeAhead(ctx context.Context, to *audience, d demand) (*proof, use) {
	p := to.stock.take(d.typ)
	if p == nil {
		return nil, use{}
	}
	why := t.fits(to, p, d)
	if why == nil {
		flight.At(ctx, string(StepSign), 1)
		select {
		case <-p.done:
			why = t.fits(to, p, d)
		case <-ctx.Done():
			if to.stock.putBack(p) {
				return nil, use{}
			}
			why = errNotSent
		}
	}
	if why == nil {
		if u, ok := to.pool(p.typ).giveHeld(p.held); ok {
			to.stock.followed(true)
			return p, u
		}
		why = errChallenge
	}
	t.throwAway(ctx, to, p, why, afterwards(ctx))
	return nil, use{}
}

// aheadOr returns a proof that was taken, or signs another one if it has become too old
// since.
func (t *Transport) aheadOr(ctx context.Context, to *audience, p *proof, sign func() (string, error)) (jwt string, isAhead bool, err error) {
	if why := t.aged(to, p); why != nil {
		t.throwAway(ctx, to, p, why, afterwards(ctx))
		jwt, err = sign()
		return jwt, false, err
	}
	return p.jwt, true, nil
}

// notSent throws away what was taken for a request that cannot be sent.
func (t *Transport) notSent(ctx context.Context, to *audience, taken ...*proof) {
	for _, p := range taken {
		if p != nil {
			t.throwAway(ctx, to, p, errNotSent, afterwards(ctx))
		}
	}
}

// throwAway sees to a proof that was taken out of the stock and is not sent. hooks calls
// the hook.
func (t *Transport) throwAway(ctx context.Context, to *audience, p *proof, why error, hooks func(func())) {
	if finished := to.stock.giveUp(p, why); !finished {
		p.cancel()
		return
	}
	if p.err == nil {
		to.pool(p.typ).release(p.held)
		t.waste(ctx, to, p, why, hooks)
	}
}

// waste counts a signature that was in vain.
func (t *Transport) waste(ctx context.Context, to *audience, p *proof, why error, hooks func(func())) {
	t.ahead.unused.Add(1)
	to.stock.followed(false)
	t.trace.unused(ctx, TraceEvent{Start: p.begun, Duration: time.Since(p.begun), Audience: to.identifier, Kind: string(p.typ), Err: why}, hooks)
}

// endAhead throws away all that is signed ahead for the audiences of a table.
func (t *Transport) endAhead(of *table, why error) {
	if of == nil {
		return
	}
	for a := range of.audiences() {
		for _, p := range a.stock.end() {
			t.throwAway(t.closed, a, p, why, aside) // whoever replaces a table holds a lock meanwhile
		}
	}
}
