// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
)

// A finding is what one check came to. Advice says what to do; it is empty if
// nothing is to be done.
type finding struct {
	Check  string `json:"check"`
	Status status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice"`
}

type status string

const (
	statusOK   status = "ok"   // works
	statusWarn status = "warn" // works, but not for everything or not for long
	statusFail status = "fail" // does not work
)

// A doctor goes through the checks. It prints each finding at once: a TPM is
// slow, and what comes next may hang.
type doctor struct {
	p     *program
	flags doctorFlags
	open  func(context.Context, *storeflag.Flags) (*storeflag.Store, error)
	now   func() time.Time

	device    string     // what deviceFile has found
	lockedOut bool       // found by lockout
	held      *[]finding // by hold
	failed    bool
	err       error // of standard output
}

func examine(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("doctor", "", aboutDoctor)
	d := &doctor{p: p, now: time.Now, open: func(ctx context.Context, f *storeflag.Flags) (*storeflag.Store, error) { return f.Open(ctx) }}
	d.flags.register(fs)
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	if err := d.flags.check(); err != nil {
		return err
	}
	if d.flags.clientID != "" && !given(fs, "timeout") {
		d.flags.timeout = setupPatience
	}
	p.endAfter(d.flags.timeout)
	return d.examine(ctx)
}

func (d *doctor) examine(ctx context.Context) error {
	network, err := newNetwork(d.flags.caFile)
	if err != nil {
		return err
	}
	defer network.CloseIdleConnections()
	setup, err := d.newSetup(network)
	if err != nil {
		return err
	}
	works := false
	if d.flags.hasTPM() {
		done := d.p.progress.step("examining the TPM")
		works = d.examineTPM(ctx)
		done()
		if d.flags.store.Keys != "" {
			d.examineKeys(ctx, works)
		}
	}
	d.examineClock()
	if d.flags.issuer != "" {
		done := d.p.progress.step("asking the server for the time")
		d.examineIssuerClock(ctx, network)
		done()
	}
	if setup != nil {
		if err := setup.examine(ctx, works); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case d.failed:
		return errors.Join(errFailed, d.err)
	}
	return d.err
}

func (d *doctor) ok(check, found string, args ...any) {
	d.report(finding{check, statusOK, fmt.Sprintf(found, args...), ""})
}

func (d *doctor) warn(check, advice, found string, args ...any) {
	d.report(finding{check, statusWarn, fmt.Sprintf(found, args...), advice})
}

func (d *doctor) fail(check, advice, found string, args ...any) {
	d.report(finding{check, statusFail, fmt.Sprintf(found, args...), advice})
}

func (d *doctor) report(f finding) {
	f.Found, f.Advice = inTerms(f.Found), terms.Replace(f.Advice)
	if d.held != nil {
		*d.held = append(*d.held, f)
		return
	}
	d.failed = d.failed || f.Status == statusFail
	var err error
	if d.flags.json {
		encoder := json.NewEncoder(d.p.stdout)
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(f)
	} else {
		_, err = fmt.Fprintf(d.p.stdout, "%-4s  %s: %s\n", f.Status, f.Check, f.Found)
		if err == nil && f.Advice != "" {
			_, err = fmt.Fprintf(d.p.stdout, "      -> %s\n", f.Advice)
		}
	}
	d.err = errors.Join(d.err, err)
}

// hold returns what f finds, in place of reporting it.
func (d *doctor) hold(f func()) (found []finding) {
	d.held = &found
	f()
	d.held = nil
	return found
}

func anyFailed(found []finding) bool {
	return slices.ContainsFunc(found, func(f finding) bool { return f.Status == statusFail })
}
