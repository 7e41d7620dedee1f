// Command quickstart runs the whole of OAuth 2.0 Attestation-Based Client
// Authentication in one process, against a reference Client Attester and a
// reference authorization server, and shows each step as it happens.
//
//		go run ./examples/quickstart -store simulator
//
//	  - main.go: the command line
//	  - demo.go: the client instance. This is the part to copy
//	  - observe.go: what watches it at work
//	  - story.go: the steps, and how they are printed
//
// The exit status is 0 only if all steps were seen, in their order, and a token
// was issued.
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
	told := fs.String("story", "", "tell another `story`: firmware (not available yet)")
	asJSON := fs.Bool("json", false, "print one JSON object a line")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := checkArguments(fs, *told); err != nil {
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
	thumbprint, err := demonstrate(ctx, &store, s, stderr)
	if err == nil {
		err = s.complete()
	}
	s.end(store.Store, thumbprint, err)
	if err != nil {
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return 1
	}
	return 0
}

func checkArguments(fs *flag.FlagSet, told string) error {
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %.60q", fs.Arg(0))
	case told == "firmware":
		return errors.New("-story firmware is not available yet: leave -story out")
	case told != "":
		return fmt.Errorf("-story %.60q: there is no such story", told)
	}
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
