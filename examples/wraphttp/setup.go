// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/examples/attester"
	"github.com/instancekey/instancekey/examples/authserver"
	"github.com/instancekey/instancekey/examples/reference"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/softkey"
	"github.com/instancekey/instancekey/tpm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cfg client.Config
	fs := flag.NewFlagSet("wraphttp", flag.ContinueOnError)
	fs.SetOutput(stderr)
	store := fs.String("store", "soft", "where the key lives: soft, or the TPM behind this `device`, unix:PATH or tcp:HOST:PORT")
	keys := fs.String("keys", "", "`folder` of the key files (required with a TPM; without it, soft keeps the key in memory)")
	fs.StringVar(&cfg.Issuer, "issuer", "", "the authorization server's issuer identifier, a `URL` (default: a reference server in this process)")
	fs.StringVar(&cfg.ClientID, "client-id", "wraphttp-client", "the OAuth client_id, `ID`")
	attesterURL := fs.String("attester", "", "ask the Client Attester at this `URL` (required with -issuer)")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 0 || (cfg.Issuer == "") != (*attesterURL == ""):
		fmt.Fprintln(stderr, "wraphttp: give both -issuer and -attester, or neither, and no other arguments")
		return 2
	case *store != "soft" && *keys == "":
		fmt.Fprintln(stderr, "wraphttp: -keys is missing: a TPM's key is kept in a file there")
		return 2
	}
	status, err := request(ctx, *store, *keys, cfg, *attesterURL)
	if err != nil {
		fmt.Fprintf(stderr, "wraphttp: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "The token endpoint answered %s.\n", status)
	if status != "200 OK" {
		return 1
	}
	return 0
}

// request runs example with everything it needs.
func request(ctx context.Context, device, keys string, cfg client.Config, attesterURL string) (status string, err error) {
	if cfg.Issuer == "" {
		servers, err := reference.Start(reference.Config{
			Attester:   attester.Config{Clients: []string{cfg.ClientID}},
			AuthServer: authserver.Config{Clients: []authserver.Client{{ID: cfg.ClientID}}, Challenges: &authserver.ChallengeConfig{Endpoint: true}},
		})
		if err != nil {
			return "", err
		}
		defer servers.Close()
		cfg.Issuer, attesterURL = servers.Issuer, servers.AttesterURL
	}
	var closeStore func() error
	if cfg.Store, closeStore, err = openStore(ctx, device, keys); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	cfg.Attester = client.HTTPAttester{URL: attesterURL}

	// The client that the program has had all along.
	network := http.DefaultTransport.(*http.Transport).Clone()
	network.ResponseHeaderTimeout = 10 * time.Second
	defer network.CloseIdleConnections()
	return example(ctx, cfg, &http.Client{Transport: network, Timeout: 30 * time.Second})
}

func openStore(ctx context.Context, device, keys string) (_ keystore.Store, closeStore func() error, err error) {
	if device != "soft" {
		store, err := tpm.Open(ctx, tpm.Config{Device: device, Dir: keys})
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	}
	soft := softkey.New()
	if keys != "" {
		if soft, err = softkey.OpenDir(keys); err != nil {
			return nil, nil, err
		}
	}
	return soft, func() error { return nil }, nil
}
