// SPDX-License-Identifier: Apache-2.0

// Command quickstart runs the whole of OAuth 2.0 Attestation-Based Client
// Authentication in one process, against a reference Client Attester and a
// reference authorization server, and shows each step as it happens.
//
//	go run ./examples/quickstart -store simulator
//	go run ./examples/quickstart -story firmware
//	go run ./examples/quickstart -report run.html
//
// The second one tells what firmware has to do with tokens: of a device whose
// firmware is too old, is updated, and so on.
//
//   - main.go: the command line
//   - demo.go: the client instance. This is the part to copy
//   - arrangement.go: what evidence there can be, by the kind of key store
//   - vendor.go: who makes the simulated devices, and tells the attester about them
//   - policy.json: which devices get tokens
//   - observe.go, logs.go, evidenceview.go: what watches the instance and the servers at work
//   - story.go: the steps, and how they are printed
//   - acts.go, fleet.go: the story of the firmware, and who plays it
//   - attested.go: what an attestation says of a device
//   - reporting.go: the page of -report
//
// The exit status is 0 only if all steps were seen, in their order, and a token
// was issued; with -story, if every act went as told.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/instancekey/instancekey/examples/internal/storeflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var store storeflag.Flags
	fs := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	fs.SetOutput(stderr)
	store.Register(fs)
	told := fs.String("story", "", "tell another `story`: firmware")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	reported := fs.String("report", "", "write a page about the run to this `file`; the same as JSON if its name ends in .json, the figure alone if in .svg")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := checkArguments(fs, *told, &store); err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return 2
	}
	if store.Store == "" {
		var why string
		store.Store, why = defaultStore()
		fmt.Fprintf(stderr, "No -store was given: %s.\n", why)
	}
	if err := store.Check(); err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return 2
	}

	s := &story{out: stdout, json: *asJSON}
	tell := demonstrate
	if *told == "firmware" {
		tell = tellFirmware
	}
	r := newReporting(*reported, *told)
	if err := r.check(); err != nil {
		fmt.Fprintf(stderr, "quickstart: -report: %v\n", err)
		return 2
	}
	thumbprint, err := tell(ctx, &store, s, r, stderr)
	err = errors.Join(err, r.write())
	s.end(store.Store, thumbprint, err)
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return 1
	}
	return 0
}

func checkArguments(fs *flag.FlagSet, told string, store *storeflag.Flags) error {
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %.60q", fs.Arg(0))
	case told == "":
		return nil
	case told != "firmware":
		return fmt.Errorf("-story %.60q: there is no such story: use firmware", told)
	case store.Keys != "":
		return errors.New("-story firmware makes its own devices: leave -keys out")
	case store.Store != "" && store.Store != "simulator":
		// The PCRs of no other TPM may be extended, and none can be reset at will.
		return errors.New("-story firmware is told with simulated devices: use -store simulator")
	case !storeflag.SimulatorBuiltIn:
		return fmt.Errorf("-story firmware: %w", storeflag.ErrNoSimulator)
	}
	store.Store = "simulator"
	return nil
}

// defaultStore chooses for who just wants to see it work. Only a demonstration
// may do this: a device never goes from a TPM to software on its own.
func defaultStore() (store, why string) {
	if storeflag.SimulatorBuiltIn {
		return "simulator", "using the TPM simulator, whose keys vanish with it"
	}
	return "soft", "using a key in software, since " + storeflag.ErrNoSimulator.Error()
}
