// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/client/report"
)

// A reporter writes a page about what has happened since the start: after the first
// call, after each that fails, and at the end. Without a file it does nothing. What it
// keeps is bounded, however long the program runs.
type reporter struct {
	file     string
	recorder *report.Recorder
	log      *slog.Logger
	called   bool
}

func newReporter(file, store string, log *slog.Logger) *reporter {
	r := &reporter{file: file, log: log}
	if file != "" {
		r.recorder = report.NewRecorder(report.Options{
			Facts:    []report.Field{{Name: "key store", Value: store}},
			Software: store == "soft",
		})
	}
	return r
}

// checkReport finds out at the start whether there is a folder for the file.
func checkReport(file string) error {
	if file == "" {
		return nil
	}
	_, err := os.Stat(filepath.Dir(file))
	return err
}

// attach has a client recorded.
func (r *reporter) attach(cfg *client.Config) {
	if r.recorder != nil {
		r.recorder.Attach(cfg)
	}
}

// call is told how a call has ended.
func (r *reporter) call(err error) {
	if r.recorder == nil || r.called && err == nil {
		return
	}
	r.called = true
	r.recorder.Fail(err)
	r.write()
}

// end is told how the program ends.
func (r *reporter) end(err error) {
	if r.recorder != nil {
		r.recorder.Fail(err)
		r.write()
	}
}

// write writes the page. A device does not stop for want of it.
func (r *reporter) write() {
	d := report.Document{Title: "What this device has done", Program: "device", Began: r.recorder.Began(), Acts: []report.Act{r.recorder.Act()}}
	if err := d.WriteFile(r.file); err != nil {
		r.log.Warn("no report", "error", err)
	}
}
