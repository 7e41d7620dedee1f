// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// served is a TPM on a socket, and what the programs there have sent.
type served struct {
	device tpmtest.Device
	calls  *tpmtest.Recorder
	store  string // for -store
}

// serve offers a TPM to command lines. At the end of the test nothing may be
// left in it.
func serve(t *testing.T, d tpmtest.Device) *served {
	t.Helper()
	t.Cleanup(func() {
		conn, err := d.Dial(context.Background()) // the test's own context has ended
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		tpmtest.NoLeaks(t, conn)
	})
	calls := tpmtest.Record(d)
	return &served{d, calls, "unix:" + tpmtest.ServeUnix(t, calls)}
}

// with lets a test use the TPM; swtpm serves one connection at a time.
func (s *served) with(t *testing.T, f func(transport.TPM)) {
	t.Helper()
	conn, err := s.device.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f(conn)
}

// eachTPM runs a test on both kinds of TPM and behind the resource manager.
func eachTPM(t *testing.T, f func(t *testing.T, s *served)) {
	t.Run("simulator", func(t *testing.T) { f(t, serve(t, tpmtest.Simulator(t))) })
	t.Run("swtpm", func(t *testing.T) { f(t, serve(t, tpmtest.SWTPM(t, tpmtest.SWConfig{}))) })
	t.Run("resource manager", func(t *testing.T) { f(t, serve(t, tpmtest.NewResourceManager(t, tpmtest.Simulator(t)))) })
}

// diagnosis is what the doctor has found, in order.
type diagnosis struct {
	t        *testing.T
	findings []finding
}

// examined runs the doctor, once with -json and once for people, and checks that
// the exit status is 0 unless something failed, and that there is advice
// wherever there is something to do.
func examined(t *testing.T, args ...string) diagnosis {
	t.Helper()
	args = append([]string{"doctor"}, args...)
	r := instancectl(t, append(args, "-json")...)
	d := diagnosis{t, exampletest.Lines[finding](t, r.stdout)}
	d.check(r.status)
	text := instancectl(t, args...)
	if text.status != r.status || strings.Count(text.stdout, "\n")-strings.Count(text.stdout, "\n      -> ") != len(d.findings) {
		t.Errorf("status %d, and for people %d:\n%s", r.status, text.status, text.stdout)
	}
	if r.stderr != "" || text.stderr != "" {
		t.Errorf("stderr %q, %q", r.stderr, text.stderr)
	}
	return d
}

func (d diagnosis) check(exit int) {
	d.t.Helper()
	failed := false
	said := make(map[string]status)
	for _, f := range d.findings {
		if f.Status == statusFail && said[f.Check] == statusOK || f.Status == statusOK && said[f.Check] == statusFail {
			d.t.Errorf("%q is both ok and failed", f.Check)
		}
		said[f.Check] = f.Status
		d.t.Logf("%+v", f)
		failed = failed || f.Status == statusFail
		if !slices.Contains([]status{statusOK, statusWarn, statusFail}, f.Status) || f.Check == "" || f.Found == "" || (f.Advice == "") != (f.Status == statusOK) {
			d.t.Errorf("finding %+v", f)
		}
	}
	if failed != (exit == 1) || !failed && exit != 0 {
		d.t.Errorf("exit status %d", exit)
	}
}

// want checks one finding: its status and what it says.
func (d diagnosis) want(check string, status status, words ...string) {
	d.t.Helper()
	i := slices.IndexFunc(d.findings, func(f finding) bool { return f.Check == check })
	if i < 0 {
		d.t.Errorf("%q was not checked", check)
		return
	}
	f := d.findings[i]
	if f.Status != status {
		d.t.Errorf("%+v, want %s", f, status)
	}
	for _, word := range words {
		if !strings.Contains(f.Found+"\n"+f.Advice, word) {
			d.t.Errorf("%+v does not say %q", f, word)
		}
	}
}

// failed checks that nothing but these checks failed.
func (d diagnosis) failed(checks ...string) {
	d.t.Helper()
	var failed []string
	for _, f := range d.findings {
		if f.Status == statusFail {
			failed = append(failed, f.Check)
		}
	}
	if !slices.Equal(failed, checks) {
		d.t.Errorf("%q failed, want %q", failed, checks)
	}
}

func (d diagnosis) checks() []string {
	var names []string
	for _, f := range d.findings {
		names = append(names, f.Check)
	}
	return names
}

// newDoctor returns a doctor to be tested without a command line, and what it
// has found.
func newDoctor(t *testing.T, f doctorFlags) (*doctor, func() diagnosis) {
	var stdout strings.Builder
	f.json = true
	d := &doctor{p: &program{stdout: &stdout}, flags: f}
	return d, func() diagnosis { return diagnosis{t, exampletest.Lines[finding](t, stdout.String())} }
}
