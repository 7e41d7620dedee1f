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
	"github.com/instancekey/instancekey/examples/internal/reference"
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
	var cfg client.Config
	store := storeflag.Flags{}
	fs := flag.NewFlagSet("wraphttp", flag.ContinueOnError)
	fs.SetOutput(stderr)
	store.RegisterDefaults(fs, "default: soft", storeflag.TemporaryKeys)
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
	}
	if store.Store == "" {
		store.Store = "soft"
	}
	status, err := request(ctx, &store, cfg, *attesterURL)
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
func request(ctx context.Context, flags *storeflag.Flags, cfg client.Config, attesterURL string) (status string, err error) {
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
	store, err := flags.Open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	cfg.Store = store
	cfg.Attester = client.HTTPAttester{URL: attesterURL}

	// The client that the program has had all along.
	network := http.DefaultTransport.(*http.Transport).Clone()
	network.ResponseHeaderTimeout = 10 * time.Second
	defer network.CloseIdleConnections()
	return example(ctx, cfg, &http.Client{Transport: network, Timeout: 30 * time.Second})
}
