// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/instancekey/instancekey/internal/binding"
)

// ErrSignAhead: no proof can be signed ahead, since Config.SignAhead is zero, or since
// what goes into proofs is the request's (Config.BindBody, Config.Claims, BindMessage).
var ErrSignAhead = errors.New("transport: no proof can be signed ahead: set Config.SignAhead, and neither Config.BindBody nor Config.Claims, and bind no message")

// Prepare signs now what a request with this method, URL and Authorization field will
// need, so that it does not wait for the key if it is made within Config.SignAhead. The
// request itself is not sent, and its body not read. What is signed already and has half
// of its time before it stays. There is nothing to do for a request that needs no
// signature of the Client Instance Key.
//
// Prepare waits as that request would, for attestation, challenge and key, until the
// request's context ends. Errors are of type *[Error], or match ErrSignAhead or
// [ErrClosed].
func (t *Transport) Prepare(req *http.Request) error {
	if t.signAhead == 0 || t.bindBody || t.claims != nil || binding.Of(req.Context()) != nil {
		return ErrSignAhead
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(t.closed, cancel)()
	for {
		err := t.prepareFor(ctx, req)
		switch {
		case t.closed.Err() != nil:
			return ErrClosed
		case !errors.Is(err, errUpdated):
			return err
		}
	}
}

// prepareFor is Prepare, by the servers and resources that there are now.
func (t *Transport) prepareFor(ctx context.Context, req *http.Request) error {
	to, a := t.route(t.table.Load(), req), attempt{number: 1}
	if to == nil || to.unattested && to.dpop != t.instance {
		return nil
	}
	if !to.unattested {
		var err error
		if a.attestation, err = t.attestation(ctx, to, ""); err != nil {
			return t.fail(to, a, StepAttestation, err)
		}
	}
	for _, d := range t.demands(req, to, a) {
		if err := t.stockUp(ctx, to.audience, d); err != nil {
			step := StepSign
			var failure *aheadError
			if errors.As(err, &failure) {
				step, err = failure.step, failure.err
			}
			return t.fail(to, a, step, err)
		}
	}
	return nil
}

// stockUp sees to it that there is a young proof for a demand. It waits for that.
func (t *Transport) stockUp(ctx context.Context, to *audience, d demand) error {
	for {
		before := to.stock.look(d.typ)
		var why error
		if before != nil {
			why = t.fits(to, before, d)
			switch {
			case why == nil && !before.isDone():
				to.stock.want(before)
				select {
				case <-before.done:
				case <-ctx.Done():
					return ctx.Err()
				}
				continue // it may have failed, or be another request's
			case why == nil && t.isYoung(to, before):
				to.stock.want(before)
				return nil
			case why == nil:
				why = errYounger
			}
		}
		p := newProof(d)
		isOurs, unused := t.put(ctx, to, before, p, why)
		switch {
		case to.stock.isEnded():
			return errUpdated
		case isOurs && (ctx.Err() != nil || unused == nil):
			return p.err
		}
		// Another one has taken its place meanwhile.
	}
}

// isYoung reports whether a proof has half of its time before it.
func (t *Transport) isYoung(to *audience, p *proof) bool {
	return time.Since(p.begun) < t.lifetime(to)/2
}
