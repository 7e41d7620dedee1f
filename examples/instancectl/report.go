// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
	"github.com/instancekey/instancekey/examples/internal/evidencereport"
	"github.com/instancekey/instancekey/keystore"
)

// A recording is -report. Without that flag it does nothing.
type recording struct {
	file     string
	recorder *report.Recorder // nil: there is to be no report
}

func (r *recording) register(fs *flag.FlagSet) {
	fs.StringVar(&r.file, "report", "", "write a page about the run to this `file` (mode 0600), also of one that fails: the steps, their times and messages, without tokens and signatures; JSON if its name ends in .json (see instancectl report)")
}

// begin begins the recording, if the file can be written.
func (r *recording) begin(store string) error {
	if r.file == "" {
		return nil
	}
	if err := checkWritable(r.file); err != nil {
		return usageError{fmt.Errorf("-report: %w", err)}
	}
	r.recorder = report.NewRecorder(report.Options{
		Facts:    []report.Field{{Name: "key store", Value: store}},
		Software: store == "soft",
		Describe: describe,
		Evidence: evidencereport.Read,
	})
	return nil
}

// attach has a client recorded.
func (r *recording) attach(cfg *client.Config) {
	if r.recorder != nil {
		r.recorder.Attach(cfg)
	}
}

// key records a key that was opened without a client.
func (r *recording) key(key keystore.Key, created bool, start time.Time) {
	kind := "open"
	if created {
		kind = "create"
	}
	if r.recorder != nil {
		r.recorder.Key(key, kind, start)
	}
}

func (r *recording) attest(ctx context.Context, attester client.Attester, req client.AttestRequest) (string, error) {
	if r.recorder == nil {
		return attester.Attest(ctx, req)
	}
	return r.recorder.Attest(ctx, attester, req)
}

// fail records that something has failed.
func (r *recording) fail(err error) {
	if r.recorder != nil && !errors.Is(err, errFailed) { // which was recorded before
		r.recorder.Fail(err)
	}
}

// end writes the report of a command that ends with err, and returns that. There is
// none of a command line that is wrong.
func (r *recording) end(command string, err error) error {
	if r.recorder == nil || errors.As(err, new(usageError)) {
		return err
	}
	r.fail(err)
	program := "instancectl"
	if info, ok := debug.ReadBuildInfo(); ok {
		program += " " + info.Main.Version
	}
	d := report.Document{Title: "instancectl " + command, Program: program, Began: r.recorder.Began(), Acts: []report.Act{r.recorder.Act()}}
	if failed := d.WriteFile(r.file); failed != nil {
		return errors.Join(err, fmt.Errorf("-report: %w", failed))
	}
	return err
}

func makeReport(_ context.Context, p *program, args []string) error {
	fs := p.newFlags("report", "FILE", "Makes the page of a run again, from the JSON that -report has written to a file that ends in .json.")
	out := fs.String("out", "", "write the page to this `file` (mode 0600); if its name ends in .svg, the figure alone (required)")
	if err := p.parse(fs, args, "FILE is missing, such as run.json"); err != nil {
		return err
	}
	if *out == "" {
		return badUsage("-out is missing: name the page's file")
	}
	if err := checkWritable(*out); err != nil {
		return usageError{fmt.Errorf("-out: %w", err)}
	}
	file, err := os.Open(fs.Arg(0))
	if err != nil {
		return usageError{err}
	}
	defer file.Close()
	d, err := report.Read(file)
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", fs.Arg(0), err)}
	}
	return d.WriteFile(*out)
}
