// SPDX-License-Identifier: Apache-2.0

// Command device is a program as it runs on a device for years: it starts at
// boot, with or without a network, gets an access token, calls a protected
// resource with it at an interval, and outlives the loss of network, Client
// Attester, authorization server and TPM. README.md says how to install it.
//
//		go run ./examples/device -store /dev/tpmrm0 -state /var/lib/meter \
//			-issuer https://as.example.com -client-id meter-firmware \
//			-attester https://attester.example.com -resource https://api.example.com/readings
//
//	  - device.go: from the start to the end, and what to do when the key is lost
//	  - store.go: where the key lives
//	  - session.go: the calls, with one key
//	  - token.go: where tokens come from, and how they are kept
//	  - network.go: HTTP, on a device whose clock may be wrong
//	  - wait.go: how long to wait between tries
//	  - service_windows.go: as a service of Windows
//	  - log.go: what is told, and how often
//	  - report.go: the page of -report
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/instancekey/instancekey/keystore"
)

// Exit statuses. The service manager should not start the program again after
// the last two: nothing changes before somebody does something. They are numbers that
// systemd has no other name for.
const (
	statusOK      = 0
	statusFailed  = 1
	statusUsage   = 64 // "USAGE", from sysexits.h
	statusKeyLost = 10
)

func main() {
	if status, isService := runService(os.Args[1:]); isService {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stderr, sleep)
	stop()
	os.Exit(status)
}

// options are the command line.
type options struct {
	store    string
	keys     string
	state    string
	issuer   string
	clientID string
	attester string
	resource string
	ca       string

	resourceParameter bool
	bootLog           bool

	scope   string
	grant   string
	every   time.Duration
	reEnrol bool
	level   slog.Level

	reportFile string
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, stderr io.Writer, wait func(context.Context, time.Duration) error) int {
	var o options
	fs := flag.NewFlagSet("device", flag.ContinueOnError)
	fs.SetOutput(stderr)
	o.register(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return statusOK
	case err != nil:
		return statusUsage
	}
	if err := o.check(fs.Args()); err != nil {
		fmt.Fprintf(stderr, "device: %v\n", err)
		return statusUsage
	}

	log, told := newLogger(stderr, o.level)
	d := device{options: o, log: log, told: told, wait: wait}
	switch err := d.run(ctx); {
	case err == nil:
		return statusOK
	case errors.Is(err, keystore.ErrKeyLost):
		log.Error("the key is lost, and with it what it was enrolled for: find out why, then have the program started with -re-enrol", "error", err)
		return statusKeyLost
	default:
		log.Error("device: " + err.Error())
		return statusFailed
	}
}

func (o *options) register(fs *flag.FlagSet) {
	fs.StringVar(&o.store, "store", "", "the key `store`: "+storeForms+" (required)")
	fs.StringVar(&o.keys, "keys", "", "`folder` of the key files (default: keys, in the folder -state)")
	fs.StringVar(&o.state, "state", "", "keep token and attestation in this `folder`; keys too, unless -keys is given (required)")
	fs.StringVar(&o.issuer, "issuer", "", "the authorization server's issuer identifier, a `URL` (required)")
	fs.StringVar(&o.clientID, "client-id", "", "the OAuth client_id, `ID` (required)")
	fs.StringVar(&o.attester, "attester", "", "the Client Attester's `URL` (required)")
	fs.StringVar(&o.resource, "resource", "", "call the protected resource with this identifier, a `URL` (required)")
	fs.StringVar(&o.ca, "ca", "", "trust servers by the certificates in this PEM `file` alone, and not the system's")
	fs.BoolVar(&o.bootLog, "boot-log", true, "send the firmware's boot log to an attester that asks what was booted, if -store is this machine's TPM and the log can be read")
	fs.TextVar(&o.level, "log", slog.LevelInfo, "tell what is of this `level` or worse: debug, info, warn, error")
	fs.BoolVar(&o.resourceParameter, "resource-parameter", true, "name -resource in the request for the token; =false is for a server that answers invalid_target")
	fs.StringVar(&o.scope, "scope", "", "ask for these `scopes`, with spaces between them")
	fs.StringVar(&o.grant, "grant", "client_credentials", "get the token by this `grant`: client_credentials, or device_code, which a user authorizes")
	fs.DurationVar(&o.every, "every", time.Minute, "call the resource about every so often")
	fs.StringVar(&o.reportFile, "report", "", "write a page about what has happened since the start to this `file`: after the first call, after each that fails, and at the end")
	fs.BoolVar(&o.reEnrol, "re-enrol", false, "make a new key when the old one is lost, for attesters that attest a device anew without anybody's help")
}

func (o *options) check(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %.60q", args[0])
	}
	for _, required := range []struct{ name, value string }{
		{"store", o.store}, {"state", o.state}, {"issuer", o.issuer},
		{"client-id", o.clientID}, {"attester", o.attester}, {"resource", o.resource},
	} {
		if required.value == "" {
			return fmt.Errorf("-%s is missing", required.name)
		}
	}
	if o.grant != "client_credentials" && o.grant != "device_code" {
		return fmt.Errorf("-grant %.60q: use client_credentials or device_code", o.grant)
	}
	if o.every <= 0 {
		return errors.New("-every must be more than 0")
	}
	if o.keys == "" {
		o.keys = filepath.Join(o.state, "keys")
	}
	if err := checkReport(o.reportFile); err != nil {
		return fmt.Errorf("-report: %w", err)
	}
	return checkStore(o.store)
}

func (o *options) scopes() []string { return strings.Fields(o.scope) }
