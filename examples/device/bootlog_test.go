// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"runtime"
	"strings"
	"testing"
)

// TestBootLogFlag (D8): the log goes to the attester unless the flag says no; where it
// cannot be read, the attester is asked without, and one line says why.
func TestBootLogFlag(t *testing.T) {
	good := []byte("log")
	ended, end := context.WithCancel(t.Context())
	end()
	for _, test := range []struct {
		name     string
		args     []string
		ctx      context.Context
		err      error // of the log
		sent     string
		fails    bool
		warnings int
	}{
		{"by default", nil, t.Context(), nil, "log", false, 0},
		{"asked for", []string{"-boot-log"}, t.Context(), nil, "log", false, 0},
		{"denied", nil, t.Context(), fs.ErrPermission, "", false, 1},
		{"no log", nil, t.Context(), fs.ErrNotExist, "", false, 1},
		{"kept", []string{"-boot-log=false"}, t.Context(), nil, "", false, 0},
		{"kept, and denied", []string{"-boot-log=false"}, t.Context(), fs.ErrPermission, "", false, 0},
		{"the program ends", nil, ended, context.Canceled, "", true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d device
			flags := flag.NewFlagSet("device", flag.ContinueOnError)
			d.register(flags)
			if err := flags.Parse(test.args); err != nil {
				t.Fatal(err)
			}
			var told strings.Builder
			d.log, d.told = newLogger(&told, d.level)
			reads := 0
			read := d.bootLogFrom(func(context.Context) ([]byte, error) {
				reads++
				if test.err != nil {
					return nil, test.err
				}
				return good, nil
			})
			if read == nil {
				if !d.bootLog && reads == 0 && test.sent == "" {
					return
				}
				t.Fatal("the log is not read")
			}
			if !d.bootLog {
				t.Fatal("the log is read against the flag")
			}
			for range 3 { // attestations
				log, err := read(test.ctx)
				if string(log) != test.sent || (err != nil) != test.fails || test.fails && !errors.Is(err, test.err) {
					t.Errorf("%q, %v", log, err)
				}
			}
			if n := strings.Count(told.String(), "level=WARN"); n != test.warnings || reads != 3 {
				t.Errorf("%d warnings, %d reads: %s", n, reads, &told)
			}
		})
	}
}

// TestBootLogIsTheMachines: with a TPM on a socket the machine's log explains nothing.
func TestBootLogIsTheMachines(t *testing.T) {
	asked := false
	read := func(context.Context) ([]byte, error) { asked = true; return nil, nil }
	for store, want := range map[string]bool{"/dev/tpmrm0": runtime.GOOS != "windows", "unix:/tmp/chip": false, "tcp:127.0.0.1:2321": false, "tbs": true} {
		cfg := tpmConfig(store, t.TempDir(), read)
		if got := cfg.EventLog != nil; got != want {
			t.Errorf("%s: log %v, want %v", store, got, want)
		}
	}
	if asked {
		t.Error("the log was read before anybody asked")
	}
}
