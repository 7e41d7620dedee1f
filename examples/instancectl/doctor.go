// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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

	lockedOut bool // found by lockout
	failed    bool
	err       error // of standard output
}

type doctorFlags struct {
	store          storeflag.Flags
	issuer, caFile string
	json           bool
}

func (f *doctorFlags) register(fs *flag.FlagSet) {
	f.store.RegisterDefaults(fs, requiredTPM, "default: no keys are examined")
	f.store.RegisterEK(fs)
	f.store.RegisterAuth(fs)
	fs.StringVar(&f.issuer, "issuer", "", "compare the clock with that of the authorization server at this `URL`; nothing but a HEAD request is sent")
	registerCA(fs, &f.caFile)
	fs.BoolVar(&f.json, "json", false, "print one JSON object on one line for each check: check, status (ok, warn or fail), found and advice")
}

func (f *doctorFlags) check() error {
	if err := f.store.Check(); err != nil {
		return usageError{err}
	}
	if f.store.Store == "soft" {
		return errNeedsTPM
	}
	return checkURL("-issuer", f.issuer)
}

func examine(ctx context.Context, p *program, args []string) error {
	fs := p.newFlags("doctor", "", "Examines a device's TPM, with -keys the keys, and the clock, and says what to do. Changes nothing,\n"+
		"with one exception: a key file that another program has made gets the Name of the storage root key\n"+
		"added, as whenever it is opened. Keys without a PIN sign once; no PIN is tried. A warning is no failure.")
	d := &doctor{p: p, now: time.Now, open: func(ctx context.Context, f *storeflag.Flags) (*storeflag.Store, error) { return f.Open(ctx) }}
	d.flags.register(fs)
	if err := p.parse(fs, args, ""); err != nil {
		return err
	}
	if err := d.flags.check(); err != nil {
		return err
	}
	return d.examine(ctx)
}

func (d *doctor) examine(ctx context.Context) error {
	network, err := newNetwork(d.flags.caFile)
	if err != nil {
		return err
	}
	defer network.CloseIdleConnections()
	works := d.examineTPM(ctx)
	if d.flags.store.Keys != "" {
		d.examineKeys(ctx, works)
	}
	d.examineClock()
	if d.flags.issuer != "" {
		d.examineIssuerClock(ctx, network)
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
	d.failed = true
	d.report(finding{check, statusFail, fmt.Sprintf(found, args...), advice})
}

func (d *doctor) report(f finding) {
	f.Found, f.Advice = inTerms(f.Found), terms.Replace(f.Advice)
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
